package libos

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestInterpreter(t *testing.T) {
	for head, want := range map[string]string{
		"#!/bin/sh\necho":           "/bin/sh",
		"#! /usr/bin/env python3\n": "/usr/bin/env",
		"#!/bin/sh":                 "/bin/sh",
		"#!\t/bin/sh\t-e\n":         "/bin/sh",
		"#!\n/bin/sh":               "",
		"#!":                        "",
		"#":                         "",
		" #!/bin/sh":                "",
	} {
		got, ok := interpreter([]byte(head))
		require.Equal(t, want, got, "%q", head)
		require.Equal(t, want != "", ok, "%q", head)
	}
}

// FuzzProgramHead: whatever a file begins with, it is a script with an
// interpreter, a program for this machine, or refused with a reason.
func FuzzProgramHead(f *testing.F) {
	self, err := os.ReadFile("/bin/true")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(self[:256])
	f.Add(self[:20])
	f.Add([]byte("#!/bin/sh\n"))
	f.Add([]byte("#!  \x00\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, head []byte) {
		if interp, ok := interpreter(head); ok {
			require.NotEmpty(t, strings.TrimSpace(interp))
			return
		}
		if checkELF(head) == "" {
			require.GreaterOrEqual(t, len(head), 64)
		}
	})
}

func TestOnlyLoopbackServers(t *testing.T) {
	for conf, want := range map[string]bool{
		"nameserver 127.0.0.53\noptions edns0\n":       true,
		"nameserver ::1\n":                             true,
		"nameserver 127.0.0.53\nnameserver 10.0.0.1\n": false,
		"nameserver 10.0.0.1\n":                        false,
		"nameserver nonsense\n":                        false,
		"# nothing\nsearch example.org\n":              false,
		"nameserver\n":                                 false,
		"":                                             false,
	} {
		require.Equal(t, want, onlyLoopbackServers([]byte(conf)), "%q", conf)
	}
}

func TestLookupEnv(t *testing.T) {
	env := []string{"A=1", "PATH=/x:/y", "PATHS=no", "EMPTY="}
	require.Equal(t, "/x:/y", lookupEnv(env, "PATH", "d"))
	require.Equal(t, "", lookupEnv(env, "EMPTY", "d"))
	require.Equal(t, "d", lookupEnv(env, "NONE", "d"))
}

func TestMergeEnv(t *testing.T) {
	base := []string{"A=1", "B=2", "A=3"}
	require.Equal(t, []string{"B=2", "A=4", "C="}, mergeEnv(base, []string{"A=4", "C="}))
	require.Equal(t, []string{"A=1", "B=2", "A=3"}, base)
}
