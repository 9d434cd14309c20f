package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Exchange is a request and what must be answered.
type Exchange struct {
	Request []byte
	Answer  []byte
	// From and To bound the part of Answer that may be anything, such as a date.
	From, To int
}

// holds says whether part, whose first byte is the answer's byte at, is right.
func (e *Exchange) holds(at int, part []byte) bool {
	end := at + len(part)
	return end <= len(e.Answer) &&
		e.same(at, part, at, min(end, e.From)) &&
		e.same(at, part, max(at, e.To), end)
}

// same compares the bytes from lo to hi of the answer, if there are any.
func (e *Exchange) same(at int, part []byte, lo, hi int) bool {
	return lo >= hi || bytes.Equal(e.Answer[lo:hi], part[lo-at:hi-at])
}

// Once asks once, on a connection of the caller's. Error: ErrAnswer, or the connection's.
func (e *Exchange) Once(conn io.ReadWriter) error {
	if _, err := conn.Write(e.Request); err != nil {
		return err
	}
	got := make([]byte, len(e.Answer))
	if n, err := io.ReadFull(conn, got); err != nil {
		return fmt.Errorf("after %.80q: %w", got[:n], err)
	}
	if !e.holds(0, got) {
		return fmt.Errorf("%w: %.80q", ErrAnswer, got)
	}
	return nil
}

// ErrLearn says that a server's answer cannot be what all others are compared with.
var ErrLearn = errors.New("not what was asked for")

// HTTP asks for a path once, on a connection of the caller's, and returns what has
// been asked and answered. body is what the path must hold. Later answers may have
// another date.
func HTTP(conn io.ReadWriter, host, path string, body []byte) (Exchange, error) {
	e := Exchange{Request: fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, host)}
	if _, err := conn.Write(e.Request); err != nil {
		return e, fmt.Errorf("GET %s: %w", path, err)
	}
	var err error
	e.Answer, err = learn(conn, body)
	if err != nil {
		return e, fmt.Errorf("GET %s: %w", path, err)
	}
	e.From, e.To = date(e.Answer[:len(e.Answer)-len(body)])
	return e, nil
}

// learn reads one answer with that body and returns all its bytes.
func learn(r io.Reader, body []byte) ([]byte, error) {
	var all bytes.Buffer
	resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(r, &all)), nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ContentLength != int64(len(body)) {
		return nil, fmt.Errorf("%w: %.60q, %d bytes, instead of %d", ErrLearn, resp.Status, resp.ContentLength, len(body))
	}
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	// With nothing more behind it the answer ends with the body.
	if !bytes.Equal(got, body) || !bytes.HasSuffix(all.Bytes(), body) {
		return nil, fmt.Errorf("%w: another body", ErrLearn)
	}
	return all.Bytes(), nil
}

// date finds the value of the Date header; from is to if there is none.
func date(head []byte) (from, to int) {
	const name = "\r\nDate:"
	from = bytes.Index(head, []byte(name))
	if from < 0 {
		return 0, 0
	}
	from += len(name)
	length := bytes.Index(head[from:], []byte("\r\n"))
	if length < 0 {
		return 0, 0
	}
	return from, from + length
}
