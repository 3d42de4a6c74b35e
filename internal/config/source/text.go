package source

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
)

// MaxSize is the largest file that is read, in bytes. A fleet of 10,000 nodes
// takes about a tenth of it.
const MaxSize = 10 << 20

// Text is one file's content, under the name its mistakes are reported with.
type Text struct {
	Name    string
	Content []byte

	number int // of the texts in a report
	// secrets are the spans, in bytes, that hold a private key: they are never
	// shown.
	secrets [][2]int
}

// Span is the range of the bytes from start to end. It walks the text, so it
// is for the few places that HCL has not given a range for.
func (t *Text) Span(start, end int) hcl.Range {
	return hcl.Range{Filename: t.Name, Start: t.pos(start), End: t.pos(end)}
}

func (t *Text) pos(offset int) hcl.Pos {
	head := t.Content[:offset]
	from := bytes.LastIndexByte(head, '\n') + 1
	return hcl.Pos{Line: bytes.Count(head, []byte("\n")) + 1, Column: utf8.RuneCount(head[from:]) + 1, Byte: offset}
}

func (t *Text) secret(at hcl.Range) bool {
	if len(t.secrets) > maxMarks {
		return true
	}
	for _, s := range t.secrets {
		if at.Start.Byte < s[1] && at.End.Byte >= s[0] {
			return true
		}
	}
	return false
}

// Readable reports what makes the text no HCL at all, as one mistake, and says
// whether it is worth parsing.
func (t *Text) Readable(r *Report) bool {
	c := t.Content
	switch {
	case len(bytes.TrimSpace(c)) == 0:
		suggestion := "moggy init writes one to start from"
		if t.isLock() {
			suggestion = Restore(t.Name)
		}
		r.Mistake(t.Span(0, 0), suggestion, "the file is empty")
		return false
	case len(c) > MaxSize:
		r.Mistake(t.Span(0, 0), "", "the file is larger than %d MB", MaxSize>>20)
		return false
	case bytes.HasPrefix(c, []byte{0xff, 0xfe}), bytes.HasPrefix(c, []byte{0xfe, 0xff}):
		r.Mistake(t.Span(0, 0), "save it as UTF-8", "the file is in UTF-16, not in UTF-8")
		return false
	case bytes.HasPrefix(c, []byte("\xef\xbb\xbf")):
		r.Mistake(t.Span(0, 0), "save it without one", "the file starts with a byte order mark")
		return false
	}
	if i := invalidUTF8(c); i >= 0 {
		r.Mistake(t.Span(i, i), "save it as UTF-8", "byte 0x%02x is not valid UTF-8", c[i])
		return false
	}
	if i := bytes.IndexByte(c, 0); i >= 0 {
		r.Mistake(t.Span(i, i), "", "a NUL byte: this is a binary file")
		return false
	}
	t.findSecrets(r)
	return !t.conflicts(r)
}

// invalidUTF8 is the offset of the first byte that is part of no character,
// or -1.
func invalidUTF8(b []byte) int {
	if utf8.Valid(b) {
		return -1
	}
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

const ageMark = "AGE-SECRET-KEY-1"

// privateKeyMarks are in every private key as ssh-keygen, OpenSSL, PuTTY and
// age write it. The third is the body of an OpenSSH key whose first line was
// lost: base64 of "openssh-key-v1".
func privateKeyMarks() []string {
	return []string{"PRIVATE KEY-----", "PuTTY-User-Key-File-", "b3BlbnNzaC1rZXktdjE", ageMark}
}

// PrivateKey is where the first mark of a private key stands in b, in bytes from
// start to end. Where there is none, start is -1.
func PrivateKey(b []byte) (start, end int) {
	start = -1
	for _, mark := range privateKeyMarks() {
		if i := bytes.Index(b, []byte(mark)); i >= 0 && (start < 0 || i < start) {
			start, end = i, i+len(mark)
		}
	}
	return start, end
}

const endOfPrivateKey = "-----END "

// maxMarks bounds how many private keys or merge conflicts are told apart in
// one file.
const maxMarks = 20

// maxKey is how far a private key that does not end is taken to reach, in
// bytes: a 16384-bit RSA key has about 12,000.
const maxKey = 16 << 10

// findSecrets reports the private keys in the text and remembers where they
// are, before anything else could print them.
func (t *Text) findSecrets(r *Report) {
	for at := 0; at < len(t.Content); {
		from, to := PrivateKey(t.Content[at:])
		if from < 0 {
			return
		}
		start, end := at+from, min(len(t.Content), at+to+maxKey)
		if string(t.Content[at+from:at+to]) == ageMark { // on one line
			end = at + to
		}
		tail := t.Content[at+to : end]
		if i := bytes.Index(tail, []byte(endOfPrivateKey)); i >= 0 {
			tail = tail[:i+len(endOfPrivateKey)]
		}
		end = at + to + len(tail)
		if i := bytes.IndexByte(t.Content[end:], '\n'); i >= 0 {
			end += i
		} else {
			end = len(t.Content)
		}
		first := bytes.LastIndexByte(t.Content[:start], '\n') + 1
		if i := bytes.Index(t.Content[first:start], []byte("-----BEGIN ")); i >= 0 {
			start = first + i
		}
		t.secrets = append(t.secrets, [2]int{first, end})
		if len(t.secrets) > maxMarks {
			return
		}
		suggestion := "put the public key here (the .pub file), and make a new pair: this one may have been seen"
		if t.isLock() {
			suggestion = "remove it, and make a new key: this one may have been seen"
		}
		r.secret(t.Span(start, start), suggestion, "a private key stands here; this file holds no secrets")
		at = end
	}
}

// conflicts reports what a git merge has left for a person to decide.
func (t *Text) conflicts(r *Report) bool {
	found := 0
	for rest, at := t.Content, 0; ; {
		start := markerAt(rest, "<<<<<<<")
		if start < 0 || found == maxMarks {
			return found > 0
		}
		found++
		ours := label(rest[start:])
		middle := markerAt(rest[start:], "=======")
		end := markerAt(rest[start:], ">>>>>>>")
		where := t.Span(at+start, at+start+len("<<<<<<<"))
		if middle < 0 || end < middle {
			r.Mistake(where, "take the file from git again and merge once more", "a merge conflict whose end is lost")
			return true
		}
		between, last := t.pos(at+start+middle).Line, t.pos(at+start+end).Line
		oursEnd := between
		if base := markerAt(rest[start:], "|||||||"); base >= 0 && base < middle {
			oursEnd = t.pos(at + start + base).Line
		}
		r.Mistake(where, t.conflictAdvice(), "a merge conflict: %s has %s, %s has %s",
			ours, lines(where.Start.Line+1, oursEnd-1), label(rest[start+end:]), lines(between+1, last-1))
		at += start + end + 1
		rest = t.Content[at:]
	}
}

// lines names the lines from first to last.
func lines(first, last int) string {
	switch {
	case last < first:
		return "nothing"
	case last == first:
		return fmt.Sprintf("line %d", first)
	}
	return fmt.Sprintf("lines %d to %d", first, last)
}

func (t *Text) conflictAdvice() string {
	if t.isLock() {
		return "keep the node blocks of both sides and the higher generation, then delete the marker lines"
	}
	return "keep what is right of both, then delete the marker lines"
}

// LockSuffix ends the name of a lock. moggy writes it, so that other advice
// helps there than in a file a person wrote.
const LockSuffix = ".lock.hcl"

// Restore is what helps when moggy's own file has lost something.
func Restore(name string) string {
	return "take it from git again: git checkout -- " + name + "; where git has none: moggy adopt --lock"
}

func (t *Text) isLock() bool { return strings.HasSuffix(t.Name, LockSuffix) }

// markerAt is the offset of the first line that is the conflict marker, or -1.
func markerAt(b []byte, marker string) int {
	for at := 0; ; {
		i := bytes.Index(b[at:], []byte(marker))
		if i < 0 {
			return -1
		}
		i += at
		at = i + len(marker)
		alone := at == len(b) || b[at] == ' ' || b[at] == '\n' || b[at] == '\r'
		if alone && (i == 0 || b[i-1] == '\n') {
			return i
		}
	}
}

// label is what git wrote behind a marker: a branch, a commit.
func label(b []byte) string {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	name := bytes.TrimSpace(line[len("<<<<<<<"):])
	if len(name) == 0 {
		return "one side"
	}
	return fmt.Sprintf("%q", name)
}
