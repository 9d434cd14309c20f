package config

import (
	"errors"
	"fmt"
)

// What can be wrong with a line. Test with errors.Is.
var (
	// ErrUnknownKey: no such key.
	ErrUnknownKey = errors.New("unknown key")
	// ErrDuplicate: the key, or the address of a static_arp, occurred before.
	ErrDuplicate = errors.New("duplicate")
	// ErrMissing: a value, or a key that another key needs, is missing.
	ErrMissing = errors.New("missing value")
	// ErrValue: the value is malformed or out of range.
	ErrValue = errors.New("bad value")
	// ErrSyntax: the line is no text, too long or has too many values.
	ErrSyntax = errors.New("bad line")
	// ErrFile: the file cannot be opened or read, is too large or is no regular file.
	ErrFile = errors.New("bad configuration file")
)

// Error is a mistake in a file. Its text is one line of the form
// "file:line: key: detail".
type Error struct {
	File string
	Line int    // from 1; 0 when the mistake is in no particular line
	Key  string // empty when the line has no known key
	Kind error  // one of the sentinels above

	detail string // what is wrong and what is accepted
}

func (e *Error) Error() string {
	where := e.File
	if e.Line > 0 {
		where = fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	if e.Key != "" {
		where += ": " + e.Key
	}
	return where + ": " + e.detail
}

// Unwrap returns the Kind.
func (e *Error) Unwrap() error { return e.Kind }

// Warning says that a valid setting has no effect yet.
type Warning struct {
	Key    string
	File   string
	Line   int // from 1
	Reason string
}

func (w Warning) String() string {
	return fmt.Sprintf("%s:%d: %s is ignored: %s", w.File, w.Line, w.Key, w.Reason)
}
