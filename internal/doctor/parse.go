package doctor

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// MaxAnswer bounds, in bytes, what a node may answer. A thousand peers, with
// echoes, take some 300 kB.
const MaxAnswer = 8 << 20

// maxText bounds, in bytes, one text of an answer that is shown; maxLog how
// many lines of a log.
const (
	maxText = 300
	maxLog  = 20
)

// Parse reads what `moggy node examine` answered. Whatever is shown of it has
// no control characters and is not long.
func Parse(b []byte) (fleet.Examination, error) {
	if len(b) > MaxAnswer {
		return fleet.Examination{}, errors.New("answer of moggy node examine: too long")
	}
	e, err := protocol.Decode[fleet.Examination](b)
	if err != nil {
		return fleet.Examination{}, err
	}
	if e.Version < 1 || e.Version > fleet.ExaminationVersion {
		return fleet.Examination{}, fmt.Errorf("answer of moggy node examine: version %d is not known", e.Version)
	}
	clean(&e)
	return e, nil
}

// ParseObserved makes an examination of what `moggy node observe` answered: a
// node whose moggy is older knows no more.
func ParseObserved(b []byte) (fleet.Examination, error) {
	if len(b) > MaxAnswer {
		return fleet.Examination{}, errors.New("answer of moggy node observe: too long")
	}
	var o fleet.Observed
	if err := json.Unmarshal(b, &o); err != nil {
		return fleet.Examination{}, fmt.Errorf("answer of moggy node observe: %w", err)
	}
	if o.Version < 1 || o.Version > fleet.ObservedVersion {
		return fleet.Examination{}, fmt.Errorf("answer of moggy node observe: version %d is not known", o.Version)
	}
	e := fleet.Examination{Protocol: protocol.Oldest, Version: fleet.ExaminationVersion, Observed: &o, Clock: o.System.Clock}
	e.Unknown = map[string]string{"examine": "its moggy is too old to examine its machine"}
	clean(&e)
	return e, nil
}

// clean makes the texts of an answer fit to be shown.
func clean(e *fleet.Examination) {
	for _, s := range []*string{&e.Kernel.TUN, &e.Kernel.NFTables, &e.Systemd} {
		*s = plain(*s)
	}
	for i := range e.Mounts {
		e.Mounts[i].Path = plain(e.Mounts[i].Path)
	}
	for i := range e.Ports {
		e.Ports[i].Owner, e.Ports[i].Protocol = plain(e.Ports[i].Owner), plain(e.Ports[i].Protocol)
	}
	for i := range e.Logs {
		l := &e.Logs[i]
		l.Unit = plain(l.Unit)
		l.Lines = l.Lines[max(0, len(l.Lines)-maxLog):]
		for j := range l.Lines {
			l.Lines[j] = plain(l.Lines[j])
		}
	}
	unknown := make(map[string]string, len(e.Unknown))
	for k, v := range e.Unknown {
		unknown[plain(k)] = plain(v)
	}
	e.Unknown = unknown
	if e.Observed != nil {
		cleanObserved(e.Observed)
	}
}

func cleanObserved(o *fleet.Observed) {
	o.Moggy = plain(o.Moggy)
	for i := range o.Drift {
		o.Drift[i].Path, o.Drift[i].Content = plain(o.Drift[i].Path), ""
	}
	for i := range o.Units {
		u := &o.Units[i]
		u.Name, u.Active, u.Sub = plain(u.Name), plain(u.Active), plain(u.Sub)
	}
	for i := range o.Missing {
		o.Missing[i] = plain(o.Missing[i])
	}
	if a := o.Activation; a != nil {
		a.By, a.Step = plain(a.By), plain(a.Step)
	}
	if p := o.Probation; p != nil {
		p.By = plain(p.By)
	}
	if m := o.Manifest; m != nil {
		m.Fleet, m.Node = fleet.Name(plain(string(m.Fleet))), fleet.NodeName(plain(string(m.Node)))
	}
	if m := o.Mesh; m != nil {
		m.Self, m.Agent = fleet.NodeName(plain(string(m.Self))), plain(m.Agent)
		for i := range m.Peers {
			m.Peers[i].Name = fleet.NodeName(plain(string(m.Peers[i].Name)))
			m.Peers[i].Via = fleet.NodeName(plain(string(m.Peers[i].Via)))
		}
	}
}

// plain is s on one line, without what a terminal would obey, cut where it is
// long.
func plain(s string) string {
	cut := false
	if len(s) > maxText {
		s, cut = s[:maxText], true
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	s = strings.TrimSpace(s)
	if cut {
		s += "..."
	}
	return s
}
