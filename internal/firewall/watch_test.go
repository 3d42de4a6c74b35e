package firewall

import (
	"encoding/binary"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// message is one of nftables', with its attributes in order.
func message(kind int, family byte, attributes ...string) syscall.NetlinkMessage {
	data := []byte{family, 0, 0, 0}
	for i, a := range attributes {
		data = binary.NativeEndian.AppendUint16(data, uint16(4+len(a)+1))
		data = binary.NativeEndian.AppendUint16(data, uint16(i+1))
		data = append(append(data, a...), 0)
		for len(data)%4 != 0 {
			data = append(data, 0)
		}
	}
	return syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: uint16(unix.NFNL_SUBSYS_NFTABLES<<8 | kind)}, Data: data}
}

func TestTransactions(t *testing.T) {
	end := message(unix.NFT_MSG_NEWGEN, 0, "7", "42", "iptables")
	tests := map[string]struct {
		messages []syscall.NetlinkMessage
		want     []string // who made those that touched our table
	}{
		"ours":              {[]syscall.NetlinkMessage{message(unix.NFT_MSG_DELTABLE, unix.NFPROTO_INET, "moggy"), end}, []string{"iptables"}},
		"two things, once":  {[]syscall.NetlinkMessage{message(unix.NFT_MSG_DELRULE, unix.NFPROTO_INET, "moggy", "input"), message(unix.NFT_MSG_NEWRULE, unix.NFPROTO_INET, "moggy", "input"), end}, []string{"iptables"}},
		"another's between": {[]syscall.NetlinkMessage{message(unix.NFT_MSG_DELRULE, unix.NFPROTO_INET, "moggy"), end, message(unix.NFT_MSG_DELRULE, unix.NFPROTO_INET, "home"), end}, []string{"iptables"}},
		"among others":      {[]syscall.NetlinkMessage{message(unix.NFT_MSG_DELTABLE, unix.NFPROTO_IPV4, "nat"), message(unix.NFT_MSG_DELTABLE, unix.NFPROTO_INET, "moggy"), end}, []string{"iptables"}},
		"another family":    {[]syscall.NetlinkMessage{message(unix.NFT_MSG_DELTABLE, unix.NFPROTO_IPV4, "moggy"), end}, nil},
		"a longer name":     {[]syscall.NetlinkMessage{message(unix.NFT_MSG_DELTABLE, unix.NFPROTO_INET, "moggy2"), end}, nil},
		"name of a rule's":  {[]syscall.NetlinkMessage{message(unix.NFT_MSG_NEWCHAIN, unix.NFPROTO_INET, "home", "moggy"), end}, nil},
		"another subsystem": {[]syscall.NetlinkMessage{{Header: syscall.NlMsghdr{Type: 0x0102}, Data: message(0, unix.NFPROTO_INET, "moggy").Data}, end}, nil},
		"cut off":           {[]syscall.NetlinkMessage{{Header: end.Header, Data: []byte{1}}, {Header: message(0, 0).Header, Data: []byte{1, 0, 0, 0, 255, 255, 1, 0}}, end}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tr := transactions{table: "moggy"}
			var got []string
			for _, m := range tt.messages {
				if by, ours := tr.add(m); ours {
					got = append(got, by)
				}
			}
			if len(got) != len(tt.want) || len(got) > 0 && got[0] != tt.want[0] {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzTransactions(f *testing.F) {
	f.Add(uint16(unix.NFNL_SUBSYS_NFTABLES<<8), message(0, unix.NFPROTO_INET, "moggy", "input").Data)
	f.Add(uint16(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN), []byte{0, 0, 0, 0, 3, 0, 1, 0})
	f.Add(uint16(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN), []byte{0, 0, 0, 0, 9, 0, 3, 0, 'a'})
	f.Fuzz(func(t *testing.T, kind uint16, data []byte) {
		tr := transactions{table: "moggy"}
		by, ours := tr.add(syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: kind}, Data: data})
		if ours || len(by) > len(data) {
			t.Errorf("one message is a transaction of ours (%v), made by %q", ours, by)
		}
	})
}
