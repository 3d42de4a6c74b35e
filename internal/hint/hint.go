// Package hint carries, beside an error, the one thing its reader can do about
// it. The CLI prints the error, then the hints, one line each.
package hint

import (
	"errors"
	"fmt"
)

type hinted struct {
	error
	text string
}

func (h hinted) Unwrap() error { return h.error }

// Wrap gives err a hint: the next command, or the line that mends it. A nil
// err stays nil.
func Wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return hinted{err, fmt.Sprintf(format, args...)}
}

// New is Wrap around a new error of the given text.
func New(text, format string, args ...any) error {
	return Wrap(errors.New(text), format, args...)
}

// All returns the hints along err's chain, the outermost first. Of joined
// errors it visits each.
func All(err error) []string {
	var out []string
	for err != nil {
		if h, ok := err.(hinted); ok { //nolint:errorlint // walking the chain by hand
			out = append(out, h.text)
		}
		switch u := err.(type) { //nolint:errorlint // walking the chain by hand
		case interface{ Unwrap() error }:
			err = u.Unwrap()
		case interface{ Unwrap() []error }:
			for _, e := range u.Unwrap() {
				out = append(out, All(e)...)
			}
			return out
		default:
			return out
		}
	}
	return out
}
