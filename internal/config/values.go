package config

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// parseHost parses the address of one IPv4 host.
func parseHost(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return a, fmt.Errorf("%q is no IP address", clip(s))
	case !a.Is4():
		return a, fmt.Errorf("%s is no IPv4 address (give IPv6 ones with --ip and --gateway)", a)
	}
	return a, CheckUnicast(a)
}

// CheckUnicast returns an error unless a can be the address of a host on a network.
func CheckUnicast(a netip.Addr) error {
	switch {
	case a.IsUnspecified():
		return fmt.Errorf("%s is the unspecified address", a)
	case a.IsLoopback():
		return fmt.Errorf("%s is a loopback address", a)
	case a.IsMulticast():
		return fmt.Errorf("%s is a multicast address", a)
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("%s is the broadcast address", a)
	}
	return nil
}

// parseNetmask returns the prefix length of a contiguous mask.
func parseNetmask(s string) (int, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return 0, fmt.Errorf("%q is no IPv4 netmask", clip(s))
	}
	b := a.As4()
	ones, size := net.IPv4Mask(b[0], b[1], b[2], b[3]).Size()
	if size == 0 || ones == 0 {
		return 0, fmt.Errorf("%s has its ones not all in front", a)
	}
	return ones, nil
}

// ParseMAC parses a unicast MAC address: six bytes in hexadecimal, of one or
// two digits each between colons or dashes, or twelve digits.
func ParseMAC(s string) (net.HardwareAddr, error) {
	var parts []string
	switch {
	case strings.Contains(s, ":"):
		parts = strings.Split(s, ":")
	case strings.Contains(s, "-"):
		parts = strings.Split(s, "-")
	case len(s) == 12:
		parts = []string{s[0:2], s[2:4], s[4:6], s[6:8], s[8:10], s[10:12]}
	}
	mac, err := macBytes(parts)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%q is no MAC address", clip(s))
	case mac[0]&1 != 0:
		return nil, fmt.Errorf("%s is a multicast MAC address", mac)
	case [6]byte(mac) == [6]byte{}:
		return nil, fmt.Errorf("%s is no host's MAC address", mac)
	}
	return mac, nil
}

func macBytes(parts []string) (net.HardwareAddr, error) {
	if len(parts) != 6 {
		return nil, strconv.ErrSyntax
	}
	mac := make(net.HardwareAddr, 6)
	for i, p := range parts {
		b, err := strconv.ParseUint(p, 16, 8)
		if err != nil || len(p) > 2 {
			return nil, strconv.ErrSyntax
		}
		mac[i] = byte(b)
	}
	return mac, nil
}

// addNeighbour adds a static_arp entry.
func addNeighbour(c *Config, values []string) error {
	addr, err := parseHost(values[0])
	if err != nil {
		return err
	}
	mac, err := ParseMAC(values[1])
	if err != nil {
		return err
	}
	c.StaticARP = append(c.StaticARP, Neighbour{Addr: addr, MAC: mac})
	return nil
}

// integer returns a parser of numbers from lo to hi, decimal or, after 0x, hexadecimal.
func integer(lo, hi int) func(string) (int, error) {
	return func(s string) (int, error) {
		digits, base := s, 10
		if rest, ok := strings.CutPrefix(strings.ToLower(s), "0x"); ok {
			digits, base = rest, 16
		}
		n, err := strconv.ParseInt(digits, base, 64)
		switch {
		case err != nil && !isRange(err), strings.HasPrefix(digits, "+"), base == 16 && strings.HasPrefix(digits, "-"):
			return 0, fmt.Errorf("%q is no number", clip(s))
		case err != nil, n < int64(lo), n > int64(hi):
			return 0, fmt.Errorf("%s is out of range", clip(s))
		}
		return int(n), nil
	}
}

func isRange(err error) bool {
	ne, ok := err.(*strconv.NumError)
	return ok && ne.Err == strconv.ErrRange
}

func parseMicros(s string) (time.Duration, error) {
	n, err := integer(0, maxMicros)(s)
	return time.Duration(n) * time.Microsecond, err
}

func parseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "1", "true", "yes", "on", "y":
		return true, nil
	case "0", "false", "no", "off", "n":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither", clip(s))
}

// oneOf returns a parser that accepts exactly the given words.
func oneOf[T ~string](words ...T) func(string) (T, error) {
	return func(s string) (T, error) {
		for _, w := range words {
			if s == string(w) {
				return w, nil
			}
		}
		return "", fmt.Errorf("%q is none of these", clip(s))
	}
}

var pciAddress = regexp.MustCompile(`^([0-9a-fA-F]{4}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]$`)

func parsePCI(s string) (string, error) {
	if !pciAddress.MatchString(s) {
		return "", fmt.Errorf("%q is no PCI address", clip(s))
	}
	return s, nil
}

// parseLevel maps Caladan's levels (emergency, critical, error, warning,
// notice, info, debug) to slog's four.
func parseLevel(s string) (slog.Level, error) {
	n, err := integer(0, 6)(s)
	switch {
	case err != nil:
		return 0, err
	case n <= 2:
		return slog.LevelError, nil
	case n == 3:
		return slog.LevelWarn, nil
	case n <= 5:
		return slog.LevelInfo, nil
	}
	return slog.LevelDebug, nil
}
