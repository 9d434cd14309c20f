package control

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"junction/ipc"
)

// anyMessage draws a message that can be sent, and how many descriptors with it.
func anyMessage(t *rapid.T) (m Message, files int) {
	switch rapid.IntRange(0, 3).Draw(t, "type") {
	case 0:
		name := rapid.StringMatching(`[a-zé0-9 ._-]{0,40}`).Draw(t, "name")
		return Hello{rapid.Uint32().Draw(t, "version"), rapid.Int32().Draw(t, "pid"), rapid.Uint64().Draw(t, "features"), name}, 0
	case 1:
		return &Error{rapid.Uint32().Draw(t, "code"), rapid.StringN(0, 100, MaxText).Draw(t, "text")}, 0
	case 2:
		n := rapid.IntRange(1, MaxFiles/ipc.FilesPerEnd).Draw(t, "queues")
		return Rings{ipc.Side(rapid.IntRange(0, 1).Draw(t, "side")), uint16(n)}, n * ipc.FilesPerEnd
	}
	payload := rapid.SliceOfN(rapid.Byte(), 1, 2000).Draw(t, "payload")
	return Raw{rapid.Uint16Min(FirstRaw).Draw(t, "kind"), payload}, rapid.IntRange(0, MaxFiles).Draw(t, "files")
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, files := anyMessage(t)
		id := rapid.Uint32().Draw(t, "id")
		b, err := encode(id, m, files)
		require.NoError(t, err)
		require.LessOrEqual(t, len(b), MaxMessage)
		gotID, got, err := decode(b, files)
		require.NoError(t, err)
		require.Equal(t, id, gotID)
		require.Equal(t, m, got)
		_, _, err = decode(b, files+MaxFiles+1)
		require.ErrorIs(t, err, ErrProtocol)
		b[0]++
		_, _, err = decode(b, files)
		require.ErrorIs(t, err, ErrVersion)
	})
}

// TestCannotBeSent: what the other side would refuse is refused before.
func TestCannotBeSent(t *testing.T) {
	for name, m := range map[string]Message{
		"nothing":             nil,
		"long name":           Hello{Name: strings.Repeat("a", MaxName+1)},
		"newline in name":     Hello{Name: "a\nb"},
		"invalid UTF-8":       Hello{Name: "\xff"},
		"long text":           &Error{Text: strings.Repeat("a", MaxText+1)},
		"invalid text":        &Error{Text: "\xc0"},
		"no queues":           Rings{},
		"too many queues":     Rings{Queues: MaxFiles/ipc.FilesPerEnd + 1},
		"a third side":        Rings{Side: 2, Queues: 1},
		"raw of defined type": Raw{Kind: TypeHello},
		"long payload":        Raw{Kind: FirstRaw, Payload: make([]byte, MaxMessage)},
	} {
		files := 0
		if m != nil {
			files, _ = m.files()
		}
		_, err := encode(0, m, files)
		require.ErrorIs(t, err, ErrMessage, name)
	}
	_, err := encode(0, Hello{}, 1)
	require.ErrorIs(t, err, ErrMessage)
	_, err = encode(0, Rings{Queues: 1}, 2)
	require.ErrorIs(t, err, ErrMessage)
}

// FuzzDecode: bytes are refused, or they are the one encoding of their message.
func FuzzDecode(f *testing.F) {
	for _, m := range []Message{Hello{1, 2, 3, "redis"}, &Error{4, "no port left"}, Rings{1, 2}, Raw{FirstRaw, []byte{1}}} {
		files, _ := m.files()
		b, err := encode(7, m, files)
		require.NoError(f, err)
		f.Add(b, files)
	}
	f.Fuzz(func(t *testing.T, b []byte, files int) {
		id, m, err := decode(b, files)
		if err != nil {
			return
		}
		again, err := encode(id, m, files)
		require.NoError(t, err)
		require.Equal(t, b, again)
	})
}

// What a peer says goes to logs and terminals as text.
func TestErrorIsPrintable(t *testing.T) {
	require.Equal(t, "one\ntwo, \ufffd[2J\ufffd \u00e4", (&Error{Text: "one\ntwo, \x1b[2J\u009b \u00e4"}).Error())
	require.Equal(t, "\ufffd", Printable("\xff"))
	require.Len(t, Printable(strings.Repeat("x", MaxText+1)), MaxText)
}
