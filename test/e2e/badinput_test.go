package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/internal/lab"
)

// asNobody makes c run without user or group privileges.
func asNobody(c *exec.Cmd) {
	c.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
}

// requireError checks exit code and message: one line that holds all the words.
func (i *instance) requireError(code int, words ...string) {
	i.t.Helper()
	require.Equal(i.t, code, i.exit(), "exit code")
	msg := i.stderr.String()
	require.Equal(i.t, 1, strings.Count(msg, "\n"), "one line: %q", msg)
	require.NotContains(i.t, msg, "goroutine")
	for _, w := range words {
		require.Contains(i.t, msg, w)
	}
	require.Empty(i.t, i.stdout.String())
}

// TestUsageErrors expects exit code 2 and a message that names the culprit.
func TestUsageErrors(t *testing.T) {
	dir := workDir(t)
	config := func(name, content string) string { return writeFile(t, dir, name, []byte(content)) }
	for name, c := range map[string]struct{ args, words []string }{
		"no program":          {[]string{"--mode", "none"}, []string{"PROGRAM"}},
		"nothing after --":    {[]string{"--mode", "none", "--"}, []string{"PROGRAM"}},
		"no --":               {[]string{"ls"}, []string{"--", "ls"}},
		"unknown flag":        {[]string{"--nonsense", "--", "true"}, []string{"--nonsense"}},
		"unknown mode":        {[]string{"--mode", "fast", "--", "true"}, []string{"--mode", "direct"}},
		"server mode and NIC": {[]string{"--mode", "server", "--nic", "nic0", "--", "true"}, []string{"--nic", "junctiond"}},
		"unknown engine":      {[]string{"--engine", "warp", "--", "true"}, []string{"--engine", "systrap"}},
		"direct without NIC":  {[]string{"--mode", "direct", "--ip", "198.18.0.2/24", "--", "true"}, []string{"--nic"}},
		"bad address":         {[]string{"--nic", "nic0", "--ip", "198.18.0.256/24", "--", "true"}, []string{"--ip", "198.18.0.256/24"}},
		"no prefix length":    {[]string{"--nic", "nic0", "--ip", "198.18.0.2", "--", "true"}, []string{"--ip", "198.18.0.2/24"}},
		"address twice":       {[]string{"--nic", "nic0", "--ip", "198.18.0.2/24", "--ip", "198.18.0.2/24", "--", "true"}, []string{"198.18.0.2/24", "twice"}},
		"no address":          {[]string{"--nic", "nic0", "--", "true"}, []string{"--ip"}},
		"bad gateway":         {[]string{"--nic", "nic0", "--ip", "198.18.0.2/24", "--gateway", "x", "--", "true"}, []string{"--gateway", `"x"`}},
		"bad MTU":             {[]string{"--nic", "nic0", "--ip", "198.18.0.2/24", "--mtu", "12", "--", "true"}, []string{"--mtu", "12"}},
		"bad queues":          {[]string{"--nic", "nic0:0", "--ip", "198.18.0.2/24", "--", "true"}, []string{"--nic", "nic0:0"}},
		"bad variable":        {[]string{"--env", "NOVALUE", "--", "true"}, []string{"--env", "NOVALUE"}},
		"bad user":            {[]string{"--uid", "-1", "--", "true"}, []string{"--uid"}},
		"relative directory":  {[]string{"--cwd", "here", "--", "true"}, []string{"--cwd", "here"}},
		"unknown key":         {[]string{config("key", "host_addr 198.18.0.2\nhost_adr 198.18.0.3\n"), "--", "true"}, []string{"key:2", "host_adr", "host_addr"}},
		"bad value":           {[]string{config("value", "# comment\nruntime_kthreads many\n"), "--", "true"}, []string{"value:2", "runtime_kthreads", "many"}},
		"bad config address":  {[]string{config("addr", "host_addr 1.2.3\n"), "--", "true"}, []string{"addr:1", "host_addr", "1.2.3"}},
		"two configurations":  {[]string{"a", "b", "--", "true"}, []string{`"b"`}},
		"rw of a missing dir": {[]string{"--rw", "", "--", "true"}, []string{"--rw"}},
	} {
		t.Run(name, func(t *testing.T) {
			c2 := command(nil)
			c2.Args = append([]string{junctionRun}, c.args...)
			launch(t, c2, c2).requireError(2, c.words...)
		})
	}
}

// TestSetupErrors expects exit code 1 where the host lacks something.
func TestSetupErrors(t *testing.T) {
	dir := workDir(t)
	file := writeFile(t, dir, "file", nil)
	missing := filepath.Join(dir, "missing")
	for name, c := range map[string]struct{ flags, words []string }{
		"missing configuration":    {[]string{missing}, []string{missing}},
		"directory configuration":  {[]string{dir}, []string{dir}},
		"missing root":             {[]string{"--rootfs", missing}, []string{missing, "--rootfs"}},
		"root is a file":           {[]string{"--rootfs", file}, []string{file, "--rootfs"}},
		"missing rw":               {[]string{"--rw", missing}, []string{missing, "--rw"}},
		"missing working dir":      {[]string{"--cwd", missing}, []string{missing, "--cwd"}},
		"working dir is no folder": {[]string{"--cwd", file}, []string{file, "--cwd"}},
	} {
		t.Run(name, func(t *testing.T) {
			start(t, c.flags, "true").requireError(1, c.words...)
		})
	}
}

// TestUnreadableFolder expects a user's own lack of permission to be named.
func TestUnreadableFolder(t *testing.T) {
	dir := workDir(t)
	secret := filepath.Join(dir, "secret")
	require.NoError(t, os.Mkdir(secret, 0o700))
	for _, flag := range []string{"--rootfs", "--rw"} {
		c := command([]string{flag, secret}, "true")
		c.Dir = "/"
		asNobody(c)
		launch(t, c, c).requireError(1, secret, "permission denied")
	}
	// The program's own lack of it is the program's affair.
	_, stderr, code := run(t, []string{"--cwd", "/", "--uid", "1234", "--gid", "1234"}, "ls", secret)
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "Permission denied")
}

// TestBadPrograms expects a shell's exit codes for programs that cannot be run.
func TestBadPrograms(t *testing.T) {
	dir := workDir(t)
	program := func(name, content string, mode os.FileMode) string {
		p := writeFile(t, dir, name, []byte(content))
		require.NoError(t, os.Chmod(p, mode))
		return p
	}
	binary, err := os.ReadFile(guest)
	require.NoError(t, err)
	foreign := append([]byte(nil), binary[:4096]...)
	foreign[18], foreign[19] = 183, 0 // e_machine: EM_AARCH64
	for _, c := range []struct {
		name, program string
		code          int
		words         []string
	}{
		{"missing", "/no/such/program", 127, []string{"/no/such/program", "not found"}},
		{"missing in PATH", "no-such-program", 127, []string{"no-such-program", "not found"}},
		{"not executable", program("plain", "#!/bin/sh\n", 0o644), 126, []string{"plain", "chmod +x"}},
		{"directory", dir, 126, []string{dir, "directory"}},
		{"text", program("text", "hello\n", 0o755), 126, []string{"text", "ELF"}},
		{"empty", program("empty", "", 0o755), 126, []string{"empty"}},
		{"foreign", program("foreign", string(foreign), 0o755), 126, []string{"foreign", "architecture"}},
		{"truncated", program("truncated", string(binary[:40]), 0o755), 126, []string{"truncated"}},
		{"half", program("half", string(binary[:300]), 0o755), 126, []string{"half"}},
		{"missing interpreter", program("script", "#!/no/such/interpreter -x\n", 0o755), 127, []string{"script", "/no/such/interpreter"}},
		{"interpreter loop", program("loop", "#!"+dir+"/loop\n", 0o755), 126, []string{"loop"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			start(t, nil, c.program).requireError(c.code, c.words...)
		})
	}
}

// TestNICErrors expects messages that name the NIC and say what to do.
func TestNICErrors(t *testing.T) {
	onNIC(t, func(t *testing.T, v variant) {
		r := newRig(t, v, lab.Options{})
		try := func(nic string) *instance {
			c := r.Server.Command(context.Background(), junctionRun,
				"--nic", nic, "--driver", v.driver, "--ip", lab.ServerAddr4.String(), "--", "true")
			return launch(t, c, c.Cmd)
		}
		t.Run("missing", func(t *testing.T) {
			if v.driver == "tap" { // which makes a device of that name
				require.Zero(t, try("nic7").exit())
				return
			}
			try("nic7").requireError(1, "nic7", lab.ServerNIC)
		})
		t.Run("in use", func(t *testing.T) {
			first := r.start(nil, guest, "tcpecho", ":7")
			first.await("ready")
			try(lab.ServerNIC).requireError(1, lab.ServerNIC, "in use")
			first.terminate(143)
		})
		t.Run("no privileges", func(t *testing.T) {
			c := r.Server.Command(context.Background(), junctionRun,
				"--nic", lab.ServerNIC, "--driver", v.driver, "--ip", lab.ServerAddr4.String(), "--", "true")
			c.Dir = "/"
			asNobody(c.Cmd)
			first := map[string]string{"afxdp": "CAP_NET_ADMIN", "tap": "CAP_SYS_ADMIN"}[v.driver]
			launch(t, c, c.Cmd).requireError(1, first, "setcap")
		})
	})
}

// TestFullDisk expects ENOSPC, as on Linux, where --rw leads to a full disk.
func TestFullDisk(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		dir := workDir(t)
		script := `mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@"`
		program := []string{"sh", "-c", `cd "$1"; head -c 3000000 /dev/zero > f; echo "head $?"; echo still >&2; rm f && echo ok > g && cat g`, "-", dir}
		c := command(nil)
		c.Path = need(t, "sh")
		c.Args = append([]string{"sh", "-c", script, dir, junctionRun}, args(isolated(engine, "--rw", dir), program)...)
		c.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
		i := launch(t, c, c)
		require.Zero(t, i.exit())
		require.Equal(t, "head 1\nok\n", i.stdout.String())
		require.Contains(t, i.stderr.String(), "No space left on device")
	})
}
