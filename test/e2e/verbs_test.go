package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
	"github.com/stretchr/testify/require"
)

// TestTop: each instance and the network server has a row.
func TestTop(t *testing.T) {
	eachServerRig(t, func(t *testing.T, r *rig) {
		busy := r.startNamed("busy", "sh", "-c", "echo ready; while :; do :; done")
		busy.await("ready")
		web := r.startNamed("web", guest, "http", ":8080")
		web.await("ready")
		checkHasher(t, r, netip.AddrPortFrom(addr4, 8080))
		var top struct {
			Server struct {
				PID int `json:"pid"`
			} `json:"netserver"`
			Instances []struct {
				Name string  `json:"name"`
				CPU  float64 `json:"cpu_percent"`
			} `json:"instances"`
		}
		r.ctl(&top, "top", "--interval", "2s")
		require.Equal(t, r.status().Server.PID, top.Server.PID)
		require.Len(t, top.Instances, 2)
		require.Equal(t, "busy", top.Instances[0].Name, "the busiest is first")
		require.Positive(t, top.Instances[0].CPU)
		busy.kill()
		web.terminate(143)
	})
}

// TestTraceVerb: what becomes of frames is told, by name.
func TestTraceVerb(t *testing.T) {
	eachServerRig(t, func(t *testing.T, r *rig) {
		web := r.startNamed("web", guest, "http", ":8080")
		web.await("ready")
		r.touch()
		const most = 100_000
		c := r.control("--json", "trace", fmt.Sprint(most))
		follower := launch(t, c, c.Cmd)
		sees := func(what string, match func(f tracedFrame) bool, act func()) {
			t.Helper()
			// The trace may begin after what happens first.
			require.Eventually(t, func() bool {
				act()
				for line := range strings.Lines(follower.stdout.String()) {
					var f tracedFrame
					if json.Unmarshal([]byte(line), &f) == nil && match(f) {
						return true
					}
				}
				return false
			}, readyTimeout, 20*time.Millisecond, what)
		}
		sees("a request that is delivered", func(f tracedFrame) bool {
			return f.From == "wire" && f.Decision == "deliver" && f.Protocol == "tcp" && f.Destination == "198.18.0.2:8080" && len(f.To) == 1 && f.To[0] == "web"
		}, func() { checkHasher(t, r, netip.AddrPortFrom(addr4, 8080)) })
		sees("an answer that goes out", func(f tracedFrame) bool {
			return f.From == "web" && f.Decision == "uplink" && f.Source == "198.18.0.2:8080"
		}, func() {})
		sees("a refusal", func(f tracedFrame) bool {
			return f.Decision == "answer reset" && f.Destination == "198.18.0.2:81"
		}, r.touch)
		follower.signal(syscall.SIGINT)
		require.Zero(t, follower.exit())

		c = r.control("trace", "1")
		one := launch(t, c, c.Cmd)
		require.Eventually(t, func() bool { r.touch(); return !one.running() }, readyTimeout, 20*time.Millisecond)
		require.Zero(t, one.exit())
		require.Equal(t, 1, strings.Count(one.stdout.String(), "\n"), one.stdout.String())
		c = r.control("trace", "0")
		require.Equal(t, 2, launch(t, c, c.Cmd).exit())
		web.terminate(143)
	})
}

// tracedFrame is a line of junction_ctl trace.
type tracedFrame struct {
	From        string   `json:"from_name"`
	To          []string `json:"to_names"`
	Protocol    string   `json:"protocol"`
	Source      string   `json:"source"`
	Destination string   `json:"destination"`
	Decision    string   `json:"decision"`
}

// TestCaptureVerb: a capture is a file that others read, and says at its end
// how complete it is.
func TestCaptureVerb(t *testing.T) {
	eachServerRig(t, func(t *testing.T, r *rig) {
		file := filepath.Join(workDir(t), "uplink.pcapng")
		c := r.control("--json", "capture", "uplink", "-w", file)
		i := launch(t, c, c.Cmd)
		require.Eventually(t, func() bool {
			r.touch()
			st, err := os.Stat(file)
			return err == nil && st.Size() > 1000
		}, readyTimeout, 20*time.Millisecond)
		i.signal(syscall.SIGINT)
		require.Zero(t, i.exit())
		var count struct {
			Frames int `json:"frames"`
			Lost   int `json:"lost_frames"`
		}
		require.NoError(t, json.Unmarshal([]byte(i.stderr.String()), &count), i.stderr.String())
		require.Zero(t, count.Lost)
		f, err := os.Open(file)
		require.NoError(t, err)
		defer f.Close()
		in, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
		require.NoError(t, err)
		frames := 0
		for {
			if _, _, err := in.ReadPacketData(); err != nil {
				break
			}
			frames++
		}
		require.Equal(t, count.Frames, frames)
	})
}
