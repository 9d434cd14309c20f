package protocol

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
)

// TestTranscripts runs testdata: each "run" is a list of what happens (see
// world.step; "all" is all that goes on by itself), and what follows is what
// monitor and instance did. `go test -rewrite` writes it anew, for people to read.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var out strings.Builder
		w := newWorld(func(s string) { fmt.Fprintln(&out, s) })
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			require.Equal(t, "run", d.Cmd, d.Pos)
			out.Reset()
			for line := range strings.Lines(d.Input) {
				name := strings.TrimSpace(line)
				if name != "all" {
					require.Contains(t, w.options(true), name, d.Pos)
					w.step(name)
					require.NoError(t, w.check())
					continue
				}
				for names := w.options(false); len(names) > 0; names = w.options(false) {
					w.step(names[0])
					require.NoError(t, w.check())
				}
			}
			return out.String() + w.text()
		})
		if !slices.Contains([]string{"testdata/silent"}, path) {
			w.finish(t)
		}
	})
}

// Whatever a peer says, it does no harm to others, and nobody panics.
func FuzzMessages(f *testing.F) {
	f.Add([]byte{0, 1, 1, 1, 1, 2, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		w := newWorld(func(string) {})
		for ; len(b) >= 4; b = b[4:] {
			m := Message{Kind: Kind(b[1]), Epoch: uint64(b[2] % 4), To: Mode(b[3] % 2)}
			switch {
			case b[0]%3 == 0:
				w.monitor(w.c.Receive(m))
			case b[0]%3 == 1:
				w.instance(w.p.Receive(m))
			default:
				all := w.options(true)
				if name := all[int(b[1])%len(all)]; !strings.Contains(name, "dies") {
					w.step(name)
				}
			}
			// A lie harms who tells it: the monitor's state stays one of its own.
			if w.steer == Direct {
				require.True(t, w.queue)
			}
		}
	})
}

func TestModes(t *testing.T) {
	for _, m := range []Mode{Server, Direct} {
		b, err := m.MarshalText()
		require.NoError(t, err)
		var back Mode
		require.NoError(t, back.UnmarshalText(b))
		require.Equal(t, m, back)
	}
	_, err := ParseMode("none")
	require.ErrorContains(t, err, "accepted: server, direct")
	require.NotZero(t, Tag(254))
	require.NotEqual(t, Tag(1), Tag(2))
}
