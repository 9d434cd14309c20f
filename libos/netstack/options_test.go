package netstack

import (
	"net"
	"net/netip"
	"testing"

	modeswitch "junction/switch"
	"junction/switch/queuetest"

	"github.com/stretchr/testify/require"
)

func testLink(t *testing.T, mtu int) *modeswitch.Endpoint {
	t.Helper()
	q, wire := queuetest.Pair(queuetest.Options{})
	t.Cleanup(wire.Close)
	ep, err := modeswitch.New(modeswitch.Options{Backend: modeswitch.Backend{
		Queues: []modeswitch.Queue{q}, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, MTU: mtu,
	}})
	require.NoError(t, err)
	return ep
}

func prefixes(ps ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range ps {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func addrs(as ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range as {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func neighbor(ip, mac string) []Neighbor {
	m, err := net.ParseMAC(mac)
	if err != nil {
		panic(err)
	}
	return []Neighbor{{IP: netip.MustParseAddr(ip), MAC: m}}
}

func TestNewRefuses(t *testing.T) {
	const mac = "02:00:00:00:00:09"
	base := prefixes("198.18.0.1/24", "fd00::1/64")
	for want, o := range map[string]Options{
		"the link has no address":                  {},
		"198.18.0.0 is the network or broadcast":   {Addresses: prefixes("198.18.0.0/24")},
		"198.18.0.255 is the network or broadcast": {Addresses: prefixes("198.18.0.255/24")},
		"224.0.0.1 cannot belong to an interface":  {Addresses: prefixes("224.0.0.1/24")},
		"127.0.0.1 cannot belong":                  {Addresses: prefixes("127.0.0.1/8")},
		"0.0.0.0 cannot belong":                    {Addresses: prefixes("0.0.0.0/0")},
		"255.255.255.255 cannot belong":            {Addresses: prefixes("255.255.255.255/32")},
		"::ffff:198.18.0.1/120 is not an IPv4":     {Addresses: prefixes("::ffff:198.18.0.1/120")},
		"invalid Prefix is not an IPv4":            {Addresses: []netip.Prefix{{}}},
		"198.18.0.1 is given twice":                {Addresses: prefixes("198.18.0.1/24", "198.18.0.1/16")},
		"MTU 1501 is not between 68 and 1500":      {Addresses: base, MTU: 1501},
		"MTU 67 is not between":                    {Addresses: base, MTU: 67},
		"fd00::1 needs an MTU of at least 1280":    {Addresses: base, MTU: 1279},
		"198.18.1.1 is in none of the networks":    {Addresses: base, Gateways: addrs("198.18.1.1")},
		"198.18.0.3 is the second one":             {Addresses: base, Gateways: addrs("198.18.0.2", "198.18.0.3")},
		"198.18.0.1 is the interface's own":        {Addresses: base, Gateways: addrs("198.18.0.1")},
		"gateway ff02::1 is not a unicast":         {Addresses: base, Gateways: addrs("ff02::1")},
		"gateway invalid IP":                       {Addresses: base, Gateways: []netip.Addr{{}}},
		"fe80::1 is in none of the networks":       {Addresses: prefixes("198.18.0.1/24"), Gateways: addrs("fe80::1")},
		"static neighbour 224.0.0.9 is not":        {Addresses: base, Neighbors: neighbor("224.0.0.9", mac)},
		"static neighbour invalid IP is not":       {Addresses: base, Neighbors: []Neighbor{{}}},
		"of static neighbour 198.18.0.2 is not":    {Addresses: base, Neighbors: neighbor("198.18.0.2", "ff:ff:ff:ff:ff:ff")},
	} {
		o.Link = testLink(t, 1500)
		_, err := New(o)
		require.ErrorIs(t, err, ErrConfig, want)
		require.ErrorContains(t, err, want)
	}
	_, err := New(Options{Addresses: base})
	require.ErrorContains(t, err, "need a link")
}

func TestNewAccepts(t *testing.T) {
	for name, o := range map[string]Options{
		"point to point":     {Addresses: prefixes("198.18.0.0/31"), Gateways: addrs("198.18.0.1")},
		"host":               {Addresses: prefixes("198.18.0.0/32")},
		"IPv4, tiny MTU":     {Addresses: prefixes("198.18.0.1/24"), MTU: 68},
		"both, link-local":   {Addresses: prefixes("198.18.0.1/24", "fd00::1/64"), Gateways: addrs("198.18.0.2", "fe80::1"), MTU: 1280},
		"static neighbours":  {Addresses: prefixes("198.18.0.1/24"), Neighbors: neighbor("198.18.0.2", "02:00:00:00:00:09")},
		"named, same prefix": {Addresses: prefixes("198.18.0.1/24", "198.18.0.2/24"), LinkName: "net0"},
	} {
		o.Link = testLink(t, 1500)
		n, err := New(o)
		require.NoError(t, err, name)
		if o.MTU != 0 {
			require.Equal(t, uint32(o.MTU), n.Stack().NICInfo()[LinkNIC].MTU, name)
		}
		n.Close()
		n.Close()
	}
}
