package cli

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Any command line gives settings with a program, does something else on
// request, or ends in a usage error of one line. (A configuration file that
// does not exist gives an error of its own.)
func FuzzCommandLine(f *testing.F) {
	f.Add("--nic\nva:2\n--ip\n198.18.0.2/24\n--gateway\n198.18.0.1\n--\np\n-x")
	f.Add("--mtu=9000\n--ip=fd00::1/64\n--nic=a\n--env=A=B\n--\np")
	f.Add("x.config\n--stats=json\n--uid\n0\n--rw\n.\n--\np")
	f.Add("--help\n--")
	f.Fuzz(func(t *testing.T, line string) {
		s, err := parse(testHost, strings.Split(line, "\n")...)
		var usage *UsageError
		if errors.As(err, &usage) {
			require.NotEmpty(t, OneLine(err))
		}
		if err == nil && s != nil {
			require.NotEmpty(t, s.Argv)
			require.True(t, s.Mode == ModeNone || len(s.Prefixes) > 0 && s.NIC != "")
			require.Regexp(t, hostName, s.Name)
		}
	})
}
