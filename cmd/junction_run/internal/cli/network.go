package cli

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"junction/internal/config"
)

// spinOfConfig is how long the receive loop looks for packets when the
// configuration asks for spinning kthreads: several times what it costs to
// wake a sleeping thread on another processor (about 9 µs).
const spinOfConfig = 50 * time.Microsecond

// network settles mode, NIC and addresses.
func (f *flags) network(s *Settings, cfg *config.Config, host Host) error {
	s.Socket = cmp.Or(f.socket, host.Socket)
	s.Mode = f.chooseMode(s.Socket, host)
	s.Lease = s.Mode == ModeServer || s.Mode == ModeDirect && f.nic == "" && f.reaches(s.Socket, host)
	if f.wait && !(s.Lease && s.Mode == ModeDirect) {
		return usagef("--wait is for --mode direct with a queue that junctiond gives; remove it")
	}
	if len(f.bare) > 0 && !s.Lease {
		a := f.bare[0]
		return usagef("--ip %q: has no prefix length; write for example %s/%d", a, a, usualBits(a))
	}
	if err := f.prioritizes(s, cfg); err != nil {
		return err
	}
	f.cores(s, cfg)
	switch {
	case s.Mode == ModeNone:
		if f.mode == "" && host.Expected != nil && host.Expected(s.Socket) {
			s.warn("no junctiond answers at %s: no network but loopback; start junctiond, or say --mode none", s.Socket)
		}
		return f.noNetwork(s, cfg)
	case s.Lease:
		s.Wait = f.wait
		return f.leased(s, cfg)
	}
	if f.nic == "" {
		return usagef("--mode direct needs a NIC: add --nic IF, or start junctiond; %s", describeNICs(host.NICs()))
	}
	s.NIC, s.Queues, s.Driver, s.NoOutlet = f.nic, f.queues, f.driver, f.noOutlet
	s.MAC, s.Neighbours = cfg.HostMAC.V, cfg.StaticARP
	if s.MTU = f.mtu; s.MTU == 0 {
		s.MTU = cfg.HostMTU.V
	}
	f.spins(s, cfg)
	f.addresses(s, cfg)
	return checkAddresses(s)
}

// cores settles what the scheduler of cores is told, which is junctiond's.
func (f *flags) cores(s *Settings, cfg *config.Config) {
	s.Cores = Cores{
		LatencyCritical: s.Priority == config.LatencyCritical, Guaranteed: cfg.GuaranteedKthreads.V,
		Spinning: cfg.SpinningKthreads.V, Delay: cfg.QDelay.V,
	}
	if s.Lease {
		return
	}
	for _, key := range []struct {
		name string
		set  bool
	}{
		{"runtime_guaranteed_kthreads", cfg.GuaranteedKthreads.Set}, {"runtime_qdelay_us", cfg.QDelay.Set},
	} {
		if key.set {
			s.warn("%s has no effect: cores are given to instances by junctiond, and this one has nothing to do with it", key.name)
		}
	}
}

// chooseMode takes the mode asked for, or else the one that flags and host suggest.
func (f *flags) chooseMode(socket string, host Host) Mode {
	switch {
	case f.mode != "":
		return Mode(f.mode)
	case f.nic != "":
		return ModeDirect
	case f.reaches(socket, host):
		return ModeServer
	}
	return ModeNone
}

// reaches tells whether there is a monitor to ask, or should be one.
func (f *flags) reaches(socket string, host Host) bool {
	return f.socket != "" || host.Monitor != nil && host.Monitor(socket)
}

// prioritizes settles the instance's part of an uplink that it shares with others.
func (f *flags) prioritizes(s *Settings, cfg *config.Config) error {
	switch {
	case s.Lease:
		s.Priority = cmp.Or(config.Priority(f.priority), cfg.Priority.V)
	case f.priority != "":
		return usagef("--priority is an instance's part of an uplink that junctiond shares out; remove it, or start junctiond")
	case cfg.Priority.Set:
		s.warn("runtime_priority is not used: no uplink is shared without junctiond")
	}
	return nil
}

func (f *flags) spins(s *Settings, cfg *config.Config) {
	switch {
	case f.set.Changed("spin"):
		s.Spin = f.spin
	case cfg.SpinningKthreads.V > 0:
		s.Spin = spinOfConfig
	}
}

// leased settles what an instance of the monitor's is told by it.
func (f *flags) leased(s *Settings, cfg *config.Config) error {
	for _, name := range []string{"nic", "driver", "no-outlet", "gateway"} {
		if f.set.Changed(name) {
			return usagef("--%s has no meaning with --mode %s: junctiond decides; remove one of the two", name, s.Mode)
		}
	}
	for name, set := range map[string]bool{"host_gateway": cfg.HostGateway.Set, "host_mac": cfg.HostMAC.Set} {
		if set {
			s.warn("%s is not used: junctiond decides", name)
		}
	}
	s.Dedicated = slices.Clone(f.bare)
	for _, p := range f.prefixes {
		s.Dedicated = append(s.Dedicated, p.Addr())
	}
	if len(s.Dedicated) == 0 && cfg.HostAddr.Set {
		s.Dedicated = []netip.Addr{cfg.HostAddr.V}
	}
	if s.MTU = f.mtu; s.MTU == 0 {
		s.MTU = cfg.HostMTU.V
	}
	s.Neighbours = cfg.StaticARP
	f.spins(s, cfg)
	return nil
}

// noNetwork refuses flags that need a NIC. A file's settings may stand: the
// same file serves with and without network.
func (f *flags) noNetwork(s *Settings, cfg *config.Config) error {
	for _, name := range []string{"nic", "driver", "no-outlet", "ip", "gateway", "mtu", "spin", "pcap", "socket"} {
		if !f.set.Changed(name) {
			continue
		}
		if f.mode == string(ModeNone) {
			return usagef("--%s has no meaning with --mode none; remove one of the two", name)
		}
		return usagef("--%s needs a NIC: add --nic IF, or start junctiond", name)
	}
	if cfg.HostAddr.Set {
		s.warn("host_addr %s is not used: without --nic IF the instance has a loopback interface only", cfg.HostAddr.V)
	}
	return nil
}

// addresses takes those of the flags, or else those of the file: any --ip
// replaces the file's address, any --gateway the file's gateway.
func (f *flags) addresses(s *Settings, cfg *config.Config) {
	s.Prefixes, s.Gateways = f.prefixes, f.gateways
	if len(s.Prefixes) == 0 && cfg.HostAddr.Set {
		s.Prefixes = []netip.Prefix{netip.PrefixFrom(cfg.HostAddr.V, cfg.HostNetmask.V)}
	}
	is4 := func(p netip.Prefix) bool { return p.Addr().Is4() }
	if len(s.Gateways) == 0 && cfg.HostGateway.Set && slices.ContainsFunc(s.Prefixes, is4) {
		s.Gateways = []netip.Addr{cfg.HostGateway.V}
	}
}

// checkAddresses checks addresses, gateways and MTU against each other.
func checkAddresses(s *Settings) error {
	if len(s.Prefixes) == 0 {
		return usagef("--mode direct needs an address: add --ip CIDR, or host_addr to a configuration file")
	}
	for _, p := range s.Prefixes {
		if err := checkHostPart(p); err != nil { // of the file; the flags' are checked
			return usagef("host_addr %s: %w", p, err)
		}
		if p.Addr().Is6() && s.MTU != 0 && s.MTU < minMTU6 {
			return usagef("MTU %d is too small for IPv6 address %s: IPv6 needs %d", s.MTU, p.Addr(), minMTU6)
		}
	}
	for _, g := range s.Gateways {
		if err := checkGateway(s, g); err != nil {
			return err
		}
	}
	return nil
}

func checkGateway(s *Settings, g netip.Addr) error {
	reached := false
	for _, p := range s.Prefixes {
		if p.Addr() == g {
			return usagef("gateway %s is the instance's own address; give that of the router", g)
		}
		reached = reached || p.Contains(g) || g.Is6() && g.IsLinkLocalUnicast() && p.Addr().Is6()
	}
	if !reached {
		return usagef("gateway %s is in none of the instance's networks %v; give an address in one of them", g, s.Prefixes)
	}
	return nil
}

func describeNICs(names []string) string {
	if len(names) == 0 {
		return "there is none here but loopback and the one with the default route, which stays the host's"
	}
	return "there are: " + strings.Join(names, ", ")
}
