package direct_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/direct"
)

func TestParseNIC(t *testing.T) {
	name, queues, err := direct.ParseNIC("eth1")
	require.NoError(t, err)
	require.Equal(t, "eth1", name)
	require.Zero(t, queues)
	name, queues, err = direct.ParseNIC("enp0s31f6.7:16")
	require.NoError(t, err)
	require.Equal(t, "enp0s31f6.7", name)
	require.Equal(t, 16, queues)
}

func TestParseNICRefuses(t *testing.T) {
	for in, says := range map[string]string{
		"":                          "no name",
		":2":                        "no name",
		"eth0:":                     "number of queues",
		"eth0:0":                    "number of queues",
		"eth0:-1":                   "number of queues",
		"eth0:+1":                   "number of queues",
		"eth0:1:2":                  "number of queues",
		"eth0:1025":                 "number of queues",
		"eth0:99999999999999999999": "number of queues",
		"sixteen-bytes-ab":          "longer than 15",
		"a/b":                       "'/'",
		"tap%d":                     "'%'",
		"a b":                       "' '",
		"..":                        "not a name",
		"a\x00":                     `'\x00'`,
		"é":                         "'é'",
	} {
		_, _, err := direct.ParseNIC(in)
		require.ErrorContains(t, err, says, "%q", in)
	}
}

func FuzzParseNIC(f *testing.F) {
	for _, s := range []string{"eth0", "eth0:4", ":", "a:b:c", "tap%d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, queues, err := direct.ParseNIC(s)
		if err != nil {
			require.Empty(t, name)
			require.Zero(t, queues)
			return
		}
		back := name
		if queues != 0 {
			back = fmt.Sprintf("%s:%d", name, queues)
		}
		again, n, err := direct.ParseNIC(back)
		require.NoError(t, err)
		require.Equal(t, name, again)
		require.Equal(t, queues, n)
	})
}
