package main

import (
	"bytes"
	"context"
	"debug/elf"
	bin "encoding/binary"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"junction/internal/lab"
)

// timeout ends a process that hangs, and with it the test.
const timeout = 60 * time.Second

// process runs the binary to its end, as prepared by prepare.
func process(t *testing.T, prepare func(*exec.Cmd), args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c := exec.CommandContext(ctx, binary, args...)
	if prepare != nil {
		prepare(c)
	}
	return finish(t, c, c.Run)
}

// inLab is process in the server's namespace of a lab.
func inLab(t *testing.T, l *lab.Lab, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c := l.Server.Command(ctx, binary, args...)
	return finish(t, c.Cmd, c.Run)
}

func finish(t *testing.T, c *exec.Cmd, run func() error) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

// asNobody makes a command run without privileges.
func asNobody(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	c.Dir = "/"
}

// programs makes a directory of things that cannot be executed, and one that can.
func programs(t *testing.T) string {
	dir := t.TempDir()
	foreign := make([]byte, 4096)
	copy(foreign, elf.ELFMAG)
	foreign[elf.EI_CLASS], foreign[elf.EI_DATA], foreign[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	bin.LittleEndian.PutUint16(foreign[16:], uint16(elf.ET_EXEC))
	bin.LittleEndian.PutUint16(foreign[18:], uint16(elf.EM_RISCV))
	for name, data := range map[string]string{
		"text":    "no program\n",
		"empty":   "",
		"riscv":   string(foreign),
		"orphan":  "#!/nonexistent/interpreter\n",
		"script":  "#!/bin/sh\necho \"$0 $*\"\n",
		"nothing": "#!\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(data), 0o755))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "plain"), []byte("#!/bin/sh\n"), 0o644))
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

func TestProgramsThatCannotBeRun(t *testing.T) {
	dir := programs(t)
	for _, tc := range []struct {
		program string
		code    int
		want    string
	}{
		{"junction-no-such-program", 127, "junction-no-such-program: not found in PATH"},
		{dir + "/none", 127, dir + "/none: not found"},
		{dir + "/text/x", 127, dir + "/text/x: not found"},
		{dir + "/orphan", 127, dir + "/orphan: interpreter: /nonexistent/interpreter: not found"},
		{dir + "/text", 126, "neither an ELF program nor a script"},
		{dir + "/empty", 126, dir + "/empty: "},
		{dir + "/nothing", 126, dir + "/nothing: "},
		{dir + "/riscv", 126, "a program for another architecture (EM_RISCV)"},
		{dir + "/plain", 126, "permission denied"},
		{dir, 126, "is a directory"},
	} {
		stdout, stderr, code := process(t, nil, "--", tc.program)
		require.Equal(t, tc.code, code, "%s: %s", tc.program, stderr)
		require.Empty(t, stdout)
		requireError(t, stderr, tc.want)
	}
	stdout, stderr, code := process(t, nil, "--", dir+"/script", "a", "--", "-b")
	require.Equal(t, 0, code, stderr)
	require.Equal(t, dir+"/script a -- -b\n", stdout)
}

func TestExitStatusOfPrograms(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "exit 255": 255, "kill -9 $$": 137, "kill -TERM $$": 143} {
		_, stderr, code := process(t, nil, "--", "sh", "-c", script)
		require.Equal(t, want, code, "%s: %s", script, stderr)
	}
}

func TestEnvironmentOfPrograms(t *testing.T) {
	stdout, stderr, code := process(t, func(c *exec.Cmd) { c.Env = []string{"PATH=/usr/bin:/bin", "A=old", "B=b"} },
		"--env", "A=new", "--env", "C=x=y", "--cwd", "/usr/", "--uid", "5", "--gid", "6", "--name", "box", "--",
		"sh", "-c", `echo "$A $B $C $(pwd) $(id -u) $(id -g) $(uname -n)"`)
	require.Equal(t, 0, code, stderr)
	require.Equal(t, "new b x=y /usr 5 6 box\n", stdout)
}

func TestWarningsOfConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c")
	require.NoError(t, os.WriteFile(file, []byte("runtime_priority lc\nhost_mtu 1500\n"), 0o600))
	stdout, stderr, code := process(t, nil, file, "--log", "json", "--", "echo", "hi")
	require.Equal(t, 0, code)
	require.Equal(t, "hi\n", stdout)
	var line struct{ Level, Msg string }
	require.NoError(t, json.Unmarshal([]byte(stderr), &line), stderr)
	require.Equal(t, "WARN", line.Level)
	require.Equal(t, file+":1: runtime_priority is ignored: this version has no core scheduler", line.Msg)
}

func TestUnusableDirectories(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	for _, flag := range []string{"--rw", "--rootfs"} {
		_, stderr, code := process(t, asNobody, flag, dir, "--", "true")
		require.Equal(t, 1, code)
		requireError(t, stderr, flag+" "+dir+": permission denied; ")
	}
	file := filepath.Join(dir, "config")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, stderr, code := process(t, asNobody, file, "--", "true")
	require.Equal(t, 1, code)
	requireError(t, stderr, file+": cannot open the configuration file: permission denied")
}

func TestSignalKillsTheProgram(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c := exec.CommandContext(ctx, binary, "--", "sh", "-c", "trap 'echo usr1' USR1; echo ready; while :; do sleep 1; done")
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	line := make([]byte, len("ready\n"))
	_, err = out.Read(line)
	require.NoError(t, err)
	require.NoError(t, c.Process.Signal(syscall.SIGUSR1))
	n, err := out.Read(line)
	require.NoError(t, err)
	require.Equal(t, "usr1\n", string(line[:n]))
	require.NoError(t, c.Process.Signal(syscall.SIGTERM))
	require.Error(t, c.Wait())
	require.Equal(t, 143, c.ProcessState.ExitCode())
}

// directFlags give an instance the NIC of a lab.
var directFlags = []string{"--nic", lab.ServerNIC, "--driver", "afxdp", "--ip", lab.ServerAddr4.String()}

// with is append to a copy.
func with(flags []string, more ...string) []string { return slices.Concat(flags, more) }

func TestNICErrors(t *testing.T) {
	l := lab.ForTest(t, lab.Options{})
	for _, tc := range []struct{ args, want string }{
		{"--nic none --driver afxdp --ip 198.18.0.2/24", "--nic none: no such NIC: "},
		{"--nic none --driver afxdp --ip 198.18.0.2/24", "NICs here that may be used: " + lab.ServerNIC},
		{"--nic lo --driver afxdp --ip 198.18.0.2/24", "--nic lo: "},
	} {
		_, stderr, code := inLab(t, l, append(strings.Fields(tc.args), "--", "true")...)
		require.Equal(t, 1, code)
		requireError(t, stderr, tc.want)
	}
	_, stderr, code := inLab(t, l, "--mode", "direct", "--", "true")
	require.Equal(t, 2, code)
	requireError(t, stderr, "add --nic IF; there are: "+lab.ServerNIC)
}

// The NIC by which the host lives is neither offered nor taken.
func TestNICOfTheDefaultRoute(t *testing.T) {
	l := lab.ForTest(t, lab.Options{})
	require.NoError(t, l.Server.AddAddr(lab.ServerNIC, netip.MustParsePrefix("198.18.0.9/24")))
	require.NoError(t, l.Server.Do(func() error {
		return netlink.RouteAdd(&netlink.Route{Gw: lab.ClientAddr4.Addr().AsSlice()})
	}))
	_, stderr, code := inLab(t, l, with(directFlags, "--", "true")...)
	require.Equal(t, 1, code)
	requireError(t, stderr, lab.ServerNIC+" would be cut off")
	_, stderr, code = inLab(t, l, "--mode", "direct", "--", "true")
	require.Equal(t, 2, code)
	requireError(t, stderr, "there is none here but loopback and the one with the default route")
}

func TestNICInUse(t *testing.T) {
	l := lab.ForTest(t, lab.Options{})
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	first := l.Server.Command(ctx, binary, with(directFlags, "--", "sh", "-c", "echo ready; read line")...)
	in, err := first.StdinPipe()
	require.NoError(t, err)
	out, err := first.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, first.Start())
	line := make([]byte, len("ready\n"))
	_, err = out.Read(line)
	require.NoError(t, err)

	_, stderr, code := inLab(t, l, with(directFlags, "--", "true")...)
	require.Equal(t, 1, code)
	requireError(t, stderr, "--nic "+lab.ServerNIC+": NIC is in use")

	require.NoError(t, in.Close())
	require.Error(t, first.Wait(), "read fails at the end of the input")
	_, stderr, code = inLab(t, l, with(directFlags, "--", "true")...)
	require.Equal(t, 0, code, stderr)
}

func TestNoPrivileges(t *testing.T) {
	l := lab.ForTest(t, lab.Options{})
	c := l.Server.Command(t.Context(), binary, with(directFlags, "--", "true")...)
	c.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	c.Dir = "/"
	_, stderr, code := finish(t, c.Cmd, c.Run)
	require.Equal(t, 1, code)
	requireError(t, stderr, "CAP_")
	require.Contains(t, stderr, "run as root")
}

func TestCheck(t *testing.T) {
	l := lab.ForTest(t, lab.Options{})
	var r struct {
		Schema       int
		Kernel       string
		Processors   int
		Engines      []string
		Capabilities map[string]bool
		NICs         []string
		NIC          struct{ Driver, Attach string }
		NICError     string `json:"nic_error"`
	}
	stdout, stderr, code := inLab(t, l, "--check", "--json", "--nic", lab.ServerNIC, "--driver", "afxdp")
	require.Equal(t, 0, code, stderr)
	require.NoError(t, json.Unmarshal([]byte(stdout), &r), stdout)
	require.Equal(t, 1, r.Schema)
	require.NotEmpty(t, r.Kernel)
	require.Positive(t, r.Processors)
	require.Equal(t, []string{"systrap"}, r.Engines)
	require.Equal(t, map[string]bool{"CAP_NET_ADMIN": true, "CAP_NET_RAW": true, "CAP_BPF": true}, r.Capabilities)
	require.Equal(t, []string{lab.ServerNIC}, r.NICs)
	require.Equal(t, "afxdp", r.NIC.Driver)
	require.Equal(t, "native", r.NIC.Attach)

	stdout, stderr, code = inLab(t, l, "--check", "--json", "--nic", "none", "--driver", "afxdp")
	require.Equal(t, 1, code)
	require.NoError(t, json.Unmarshal([]byte(stdout), &r), stdout)
	require.Contains(t, r.NICError, "--nic none: no such NIC")
	require.Contains(t, stderr, `{"error":"--nic none: no such NIC`)

	stdout, _, code = process(t, asNobody, "--check")
	require.Equal(t, 0, code)
	require.Regexp(t, `capabilities.CAP_NET_RAW +false`, stdout)
}

func TestStatisticsAddUp(t *testing.T) {
	l := lab.ForTest(t, lab.Options{})
	pcap := filepath.Join(t.TempDir(), "p")
	const client = `import socket
c = socket.create_connection(("198.18.0.1", 7))
c.sendall(b"x" * 100000)
c.shutdown(socket.SHUT_WR)
c.recv(1)`
	ln, err := l.Client.Listen("tcp", "198.18.0.1:7")
	require.NoError(t, err)
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return // the listener is closed when the test fails
		}
		defer c.Close()
		_, _ = new(bytes.Buffer).ReadFrom(c)
	}()
	_, stderr, code := inLab(t, l, with(directFlags, "--stats=json", "--pcap", pcap, "--", "python3", "-c", client)...)
	require.Equal(t, 0, code, stderr)
	var r struct {
		Schema   int
		Syscalls uint64
		Mode     string
		Device   struct {
			Driver    string
			RxPackets uint64            `json:"rx_packets"`
			TxPackets uint64            `json:"tx_packets"`
			Drops     map[string]uint64 `json:"drops"`
		}
		Link struct {
			RxPackets   uint64            `json:"rx_packets"`
			RxDelivered uint64            `json:"rx_delivered"`
			TxPackets   uint64            `json:"tx_packets"`
			TxSent      uint64            `json:"tx_sent"`
			TxBytes     uint64            `json:"tx_bytes"`
			Drops       map[string]uint64 `json:"drops"`
		}
	}
	require.NoError(t, json.Unmarshal([]byte(stderr), &r), stderr)
	require.Equal(t, 1, r.Schema)
	require.Equal(t, "direct", r.Mode)
	require.Equal(t, "afxdp", r.Device.Driver)
	require.NotZero(t, r.Syscalls)
	require.Greater(t, r.Link.TxBytes, uint64(100000))
	rx, tx := r.Link.RxDelivered, r.Link.TxSent
	for reason, n := range r.Link.Drops {
		if strings.HasPrefix(reason, "rx_") {
			rx += n
		} else {
			tx += n
		}
	}
	require.Equal(t, r.Link.RxPackets, rx)
	require.Equal(t, r.Link.TxPackets, tx)
	require.Equal(t, r.Device.RxPackets, r.Link.RxPackets)
	info, err := os.Stat(pcap)
	require.NoError(t, err)
	require.Greater(t, info.Size(), int64(100000))
}
