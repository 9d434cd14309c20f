package scope

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"junction/portmap/table"
)

func TestParse(t *testing.T) {
	for list, want := range map[string]string{
		"80":                        "80",
		"443, 80":                   "80,443",
		"80/tcp,80/udp":             "80",
		"1-65535":                   "1-65535",
		"5000-5010/udp,5004":        "5000-5003/udp,5004,5005-5010/udp",
		"7,8/tcp,9/tcp,8/udp,10-12": "7-8,9/tcp,10-12",
	} {
		p, err := Parse(list)
		require.NoError(t, err, list)
		require.Equal(t, want, p.String(), list)
	}
	for _, bad := range []string{"", "0", "80,", "-80", "80-", "65536", "9-8", "80/", "80/sctp", "80/tcp/udp", "http", "0x50", "+80", "1-2-3", strings.Repeat("1,", MaxEntries) + "1"} {
		_, err := Parse(bad)
		require.ErrorIs(t, err, ErrPorts, bad)
	}
}

// TestNilIsAll: where no list is given, every port is meant.
func TestNilIsAll(t *testing.T) {
	var all *Ports
	require.True(t, all.Has(table.UDP, 7))
	require.Equal(t, "all", all.String())
	some, err := Parse("1-65535")
	require.NoError(t, err)
	require.False(t, some.Equal(all))
	require.True(t, all.Equal(nil))
	require.False(t, some.Has(table.Protos, 7))
}

// TestListsAndSets: a list has the ports that it names, and no others; its text, and
// its bitmap, are the same set again.
func TestListsAndSets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want [table.Protos][1 << 16]bool
		var entries []string
		for range rapid.IntRange(1, MaxEntries).Draw(t, "entries") {
			low := rapid.IntRange(1, 300).Draw(t, "low") // near each other, so that they meet
			high := low + rapid.IntRange(0, 5).Draw(t, "more")
			proto := rapid.IntRange(0, int(table.Protos)).Draw(t, "proto")
			e := fmt.Sprintf("%d-%d", low, high)
			if proto < int(table.Protos) {
				e += "/" + table.Proto(proto).String()
			}
			entries = append(entries, e)
			for p := range table.Protos {
				for n := low; n <= high && (int(p) == proto || proto == int(table.Protos)); n++ {
					want[p][n] = true
				}
			}
		}
		s, err := Parse(strings.Join(entries, ","))
		require.NoError(t, err)
		for p := range want {
			for n, in := range want[p] {
				if s.Has(table.Proto(p), uint16(n)) != in {
					t.Fatalf("%v %d of %v", table.Proto(p), n, entries)
				}
			}
		}
		text, err := json.Marshal(s)
		require.NoError(t, err)
		var same *Ports
		require.NoError(t, json.Unmarshal(text, &same))
		require.True(t, s.Equal(same))
		require.True(t, s.Equal(Of(s.Bits())))
	})
}

// FuzzParse: whatever is given, it is a list or an error, and a list is the same
// after its way as text.
func FuzzParse(f *testing.F) {
	f.Add("80,443/tcp,5000-5010/udp")
	f.Fuzz(func(t *testing.T, list string) {
		p, err := Parse(list)
		if err != nil {
			require.ErrorIs(t, err, ErrPorts)
			return
		}
		q := new(Ports)
		require.NoError(t, q.UnmarshalText([]byte(p.String())))
		require.True(t, p.Equal(q))
	})
}
