package load

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestPaced: every answer counts, a wrong one and the end of the connection are
// errors, and a context ends it.
func TestPaced(t *testing.T) {
	e := Exchange{Request: []byte("ask\n"), Answer: []byte("answer\n")}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	p, err := Paced(ctx, listen(t, lines(func() []byte { return []byte("answer\n") })), e, time.Microsecond, 50*time.Millisecond)
	require.NoError(t, err)
	require.Positive(t, p.Requests)
	require.LessOrEqual(t, p.Percentile(50), p.Percentile(99))
	require.Positive(t, p.Percentile(50))

	_, err = Paced(ctx, listen(t, lines(func() []byte { return []byte("wrong!\n") })), e, 0, within)
	require.ErrorIs(t, err, ErrAnswer)
	_, err = Paced(ctx, listen(t, lines(func() []byte { return nil })), e, 0, within)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	_, err = Paced(ctx, nil, Exchange{}, 0, within)
	require.ErrorIs(t, err, errEmpty)

	short, stop := context.WithCancel(ctx)
	_, err = Paced(short, listen(t, func(c net.Conn) {
		lines(func() []byte { stop(); return []byte("answer\n") })(c)
	}), e, 0, within)
	require.ErrorIs(t, err, context.Canceled)
}
