package cli

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"junction/direct"
	"junction/internal/config"
)

const (
	minMTU  = config.MinMTU
	maxMTU  = 65535 // of an IP packet
	minMTU6 = 1280  // IPv6 needs it, RFC 8200 section 5
	maxSpin = time.Second

	maxQuantum = time.Hour // as runtime_quantum_us
)

// number returns a setter for a decimal number from lo to hi.
func number(to *int, lo, hi int) func(string) error {
	return func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || n < lo || n > hi {
			return fmt.Errorf("accepted: a number from %d to %d", lo, hi)
		}
		*to = n
		return nil
	}
}

// path returns a setter for a path.
func path(to *string) func(string) error {
	return func(s string) error {
		if s == "" || strings.ContainsRune(s, 0) {
			return errors.New("accepted: a path")
		}
		*to = s
		return nil
	}
}

func (f *flags) setNIC(s string) (err error) {
	f.nic, f.queues, err = direct.ParseNIC(s)
	return err
}

// id returns a setter for a user or group id; the last one, -1, is no id in Linux.
func id(to *uint32) func(string) error {
	return func(s string) error {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil || n == math.MaxUint32 {
			return fmt.Errorf("accepted: a number from 0 to %d", uint32(math.MaxUint32-1))
		}
		*to = uint32(n)
		return nil
	}
}

func (f *flags) addPrefix(s string) error {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" && config.CheckUnicast(a) == nil {
		f.bare = append(f.bare, a) // junctiond knows the prefix length
		return nil
	}
	p, err := parsePrefix(s)
	if err != nil {
		return err
	}
	for _, q := range f.prefixes {
		if q.Addr() == p.Addr() {
			return errors.New("this address is given twice; remove one of the two")
		}
	}
	f.prefixes = append(f.prefixes, p)
	return nil
}

// parsePrefix parses a host's address with its prefix length.
func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
			return p, fmt.Errorf("has no prefix length; write for example %s/%d", a, usualBits(a))
		}
		return p, errors.New("accepted: an address with its prefix length, such as 198.18.0.2/24 or fd00::2/64")
	}
	if p.Addr().Is4In6() {
		return p, errors.New("is an IPv4 address in IPv6 form; write it as IPv4")
	}
	if err := config.CheckUnicast(p.Addr()); err != nil {
		return p, err
	}
	return p, checkHostPart(p)
}

func usualBits(a netip.Addr) int {
	if a.Is4() {
		return 24
	}
	return 64
}

// checkHostPart refuses the addresses of an IPv4 network that are no host's.
func checkHostPart(p netip.Prefix) error {
	if p.Bits() == 0 {
		return errors.New("prefix length 0 leaves no network; give that of your network, such as /24")
	}
	if !p.Addr().Is4() || p.Bits() > 30 { // RFC 3021: both addresses of a /31 are hosts
		return nil
	}
	a := p.Addr().As4()
	host := (uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3])) << p.Bits()
	switch host >> p.Bits() {
	case 0:
		return fmt.Errorf("is the address of the network itself; give a host's address in %s", p.Masked())
	case ^uint32(0) >> p.Bits():
		return fmt.Errorf("is the broadcast address of %s; give a host's address in it", p.Masked())
	}
	return nil
}

func (f *flags) addGateway(s string) error {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Is4In6() || a.Zone() != "" {
		return errors.New("accepted: an address such as 198.18.0.1 or fd00::1")
	}
	if err := config.CheckUnicast(a); err != nil {
		return err
	}
	for _, g := range f.gateways {
		if g.Is4() == a.Is4() {
			return fmt.Errorf("there is a gateway for this IP version already, %s; give one for each", g)
		}
	}
	f.gateways = append(f.gateways, a)
	return nil
}

func (f *flags) setSpin(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > maxSpin {
		return fmt.Errorf("accepted: a duration from 0 to %v, such as 50us", maxSpin)
	}
	f.spin = d
	return nil
}

func (f *flags) setQuantum(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > maxQuantum {
		return fmt.Errorf("accepted: a duration from 0 to %v, such as 100us", maxQuantum)
	}
	f.quantum = d
	return nil
}

// hostName is RFC 1123's, with underscores, within Linux's HOST_NAME_MAX.
var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)

func (f *flags) setName(s string) error {
	if !hostName.MatchString(s) {
		return errors.New("accepted: up to 63 letters, digits, dots, dashes and underscores, the first and last a letter or digit")
	}
	f.name = s
	return nil
}

func (f *flags) addEnv(s string) error {
	if k, _, ok := strings.Cut(s, "="); !ok || k == "" || strings.ContainsRune(s, 0) {
		return errors.New("accepted: KEY=VALUE")
	}
	f.env = append(f.env, s)
	return nil
}

func (f *flags) addReadWrite(s string) error {
	var p string
	if err := path(&p)(s); err != nil {
		return err
	}
	f.rw = append(f.rw, p)
	return nil
}

func (f *flags) setLogLevel(s string) error {
	if !slices.Contains(enums["log-level"], s) {
		return fmt.Errorf("accepted: %s", strings.Join(enums["log-level"], ", "))
	}
	return f.logLevel.UnmarshalText([]byte(s))
}

// absolute returns path made absolute from directory cwd, which may be unknown.
func absolute(cwd, p string) (string, error) {
	switch {
	case filepath.IsAbs(p):
		return filepath.Clean(p), nil
	case cwd == "":
		return "", fmt.Errorf("is relative to a working directory that no longer exists; give an absolute path")
	}
	return filepath.Join(cwd, p), nil
}
