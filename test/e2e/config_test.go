package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/internal/lab"
)

// TestConfigFile starts an instance from a file of Junction's, as it is. Keys
// that cannot be honoured yet give a named warning.
func TestConfigFile(t *testing.T) {
	onNIC(t, func(t *testing.T, v variant) {
		r := newRig(t, v, lab.Options{})
		mac, err := r.Client.HardwareAddr(lab.ClientNIC)
		require.NoError(t, err)
		file := writeFile(t, workDir(t), "redis.config", fmt.Appendf(nil, `# an instance
host_addr %s
host_netmask 255.255.255.0
host_gateway 198.18.0.1
runtime_kthreads 2
runtime_spinning_kthreads 0
runtime_guaranteed_kthreads 1
runtime_priority lc
runtime_quantum_us 0
static_arp 198.18.0.1 %s
`, addr4, mac))
		c := r.Server.Command(context.Background(), junctionRun, file, "--engine", v.engine,
			"--nic", lab.ServerNIC, "--driver", v.driver, "--", need(t, "redis-server"), "--protected-mode", "no", "--save", "")
		i := launch(t, c, c.Cmd)
		addr := netip.AddrPortFrom(addr4, 6379)
		r.awaitPort(i, addr)
		checkRedis(t, r, addr)
		i.terminate(0)
		require.Contains(t, i.stderr.String(), "runtime_priority")
		require.NotContains(t, i.stderr.String(), "static_arp")
	})
}

// TestFlagsOverrideConfig expects --ip to replace the file's address.
func TestFlagsOverrideConfig(t *testing.T) {
	onNIC(t, func(t *testing.T, v variant) {
		r := newRig(t, v, lab.Options{})
		file := writeFile(t, workDir(t), "echo.config", []byte("host_addr 198.18.0.99\nhost_netmask 255.255.255.0\n"))
		c := r.Server.Command(context.Background(), junctionRun, append([]string{file}, args(r.flags(), []string{guest, "http", ":8080"})...)...)
		i := launch(t, c, c.Cmd)
		addr := netip.AddrPortFrom(addr4, 8080)
		r.awaitPort(i, addr)
		checkHasher(t, r, addr)
		i.terminate(143)
	})
}

// TestBridgedTAP attaches an instance to a persistent TAP in a bridge.
func TestBridgedTAP(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		for _, queues := range []int{1, 2} {
			r := newRig(t, variant{engine: engine, driver: "tap"}, lab.Options{Bridge: true, Queues: queues})
			c := r.Server.Command(context.Background(), junctionRun, "--engine", engine,
				"--nic", fmt.Sprintf("%s:%d", lab.ServerTAP, queues), "--driver", "tap",
				"--ip", lab.ServerAddr4.String(), "--ip", lab.ServerAddr6.String(), "--stats=json", "--", guest, "http", ":8080")
			i := launch(t, c, c.Cmd)
			for _, a := range []netip.Addr{addr4, addr6} {
				addr := netip.AddrPortFrom(a, 8080)
				r.awaitPort(i, addr)
				checkHasher(t, r, addr)
				download(t, r, addr, 20<<20)
			}
			i.terminate(143)
			require.Equal(t, queues, i.checkStats().Device.Queues)
		}
	})
}
