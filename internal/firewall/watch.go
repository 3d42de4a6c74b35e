package firewall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// errMissed says that changes were made that nobody told us of.
var errMissed = errors.New("the kernel had more changes to tell of than it could")

// change is one transaction that touched our table, or the end of the watch.
type change struct {
	by  string // the program that made it, as far as the kernel knows
	err error
}

// watch tells of every transaction that touches the table of family inet, from
// when it returns until ctx is done or it tells of an error.
func watch(ctx context.Context, table string) (<-chan change, error) {
	socket, err := nl.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		return nil, fmt.Errorf("watch nftables: %w", err)
	}
	context.AfterFunc(ctx, socket.Close)
	out := make(chan change)
	tell := func(c change) bool {
		select {
		case out <- c:
			return true
		case <-ctx.Done():
			return false
		}
	}
	go func() {
		t := transactions{table: table}
		for {
			messages, from, err := socket.Receive()
			switch {
			case errors.Is(err, unix.ENOBUFS):
				tell(change{err: errMissed})
				return
			case err != nil:
				tell(change{err: fmt.Errorf("watch nftables: %w", err)})
				return
			case from.Pid != 0:
				continue // not from the kernel
			}
			for _, m := range messages {
				if by, ours := t.add(m); ours && !tell(change{by: by}) {
					return
				}
			}
		}
	}()
	return out, nil
}

// transactions puts together what the kernel tells in pieces: a message for each
// thing that changed, each with the name of its table, and one with the number
// of the generation of rules that the transaction made, last.
type transactions struct {
	table   string
	touched bool
}

// Where each kind of message has the name of its table: all of nftables' have it
// first (NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, ...; see
// linux/netfilter/nf_tables.h).
const tableName = unix.NFTA_TABLE_NAME

// add takes in one message. ours says that it ended a transaction that touched
// the table.
func (t *transactions) add(m syscall.NetlinkMessage) (by string, ours bool) {
	const nfgen = 4 // bytes of struct nfgenmsg: family, version, resource
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < nfgen {
		return "", false
	}
	family, attributes := m.Data[0], m.Data[nfgen:]
	if m.Header.Type&0xff == unix.NFT_MSG_NEWGEN {
		ours, t.touched = t.touched, false
		return attribute(attributes, unix.NFTA_GEN_PROC_NAME), ours
	}
	if family == unix.NFPROTO_INET && attribute(attributes, tableName) == t.table {
		t.touched = true
	}
	return "", false
}

// attribute is the text of the first attribute of that kind, "" if there is
// none.
func attribute(b []byte, kind uint16) string {
	const (
		head     = unix.SizeofNlAttr
		typeMask = 0x3fff // NLA_TYPE_MASK, linux/netlink.h
	)
	for len(b) >= head {
		size, have := int(nl.NativeEndian().Uint16(b)), nl.NativeEndian().Uint16(b[2:])&typeMask
		if size < head || size > len(b) {
			return ""
		}
		if have == kind {
			text, _, _ := bytes.Cut(b[head:size], []byte{0})
			return string(text)
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return ""
}
