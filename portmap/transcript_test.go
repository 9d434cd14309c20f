package portmap

import (
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
)

// TestTranscripts runs testdata/transcripts: each "run" is a list of script
// commands, and what follows is what they did. `go test -rewrite` writes it anew,
// for people to read.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/transcripts", func(t *testing.T, path string) {
		s := &script{t: t}
		defer s.close()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			require.Equal(t, "run", d.Cmd, d.Pos)
			var out strings.Builder
			for line := range strings.Lines(d.Input) {
				text, err := s.exec(strings.TrimSpace(line))
				require.NoError(t, err, d.Pos)
				out.WriteString(text)
				checkInvariants(t, s.m, s.view)
			}
			return out.String()
		})
	})
}

// FuzzScript runs any commands and checks that the state stays consistent.
func FuzzScript(f *testing.F) {
	f.Add("new 198.18.0.1 range=5000-5001\njoin 1 198.18.0.1 198.19.0.1\nbind 1 1 tcp 0.0.0.0:0\nlisten 1 1\nclose 1 1 60s\nadvance 1h")
	f.Add("new 198.18.0.1 fd00::1\njoin 1 fd00::1\nbind 1 1 udp [::]:53 reuseport v6only uid=3\nrestart\nleave 1")
	f.Add("new 198.18.0.1 slots=32\njoin 2 198.18.0.1 fd00::3 mode=direct maxports=1\nbind 2 7 tcp 0.0.0.0:80\nrestart\njoin 2 198.18.0.1\nsettle 2")
	f.Fuzz(func(t *testing.T, text string) {
		s := &script{t: t}
		defer s.close()
		for line := range strings.Lines(text) {
			if _, err := s.exec(line); err != nil {
				require.ErrorIs(t, err, errSyntax)
				continue
			}
			if s.m != nil {
				checkInvariants(t, s.m, s.view)
			}
		}
	})
}
