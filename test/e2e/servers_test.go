package e2e

import (
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/internal/lab"
)

// server is an unmodified server program of the matrix.
type server struct {
	name string
	port uint16
	// argv prepares the program's files in dir and returns the program.
	argv func(t *testing.T, dir string) []string
	// check drives the server with real clients from the client's namespace.
	check func(t *testing.T, r *rig, addr netip.AddrPort)
	// exit is the exit code after SIGTERM; 143 where the program leaves it to the kernel.
	exit int
	ipv6 bool // check is run over IPv6 as well
}

var servers = []server{
	{name: "redis", port: 6379, argv: redisArgv, check: checkRedis, ipv6: true},
	{name: "memcached", port: 11211, argv: memcachedArgv, check: checkMemcached},
	{name: "nginx", port: 80, argv: nginxArgv, check: checkNginx, ipv6: true},
	{name: "nginx-workers", port: 80, argv: nginxWorkersArgv, check: checkNginxWorkers},
	{name: "python", port: 8000, argv: pythonArgv, check: checkFiles, exit: 143},
	{name: "node", port: 8080, argv: nodeArgv, check: checkHasher, exit: 143},
	{name: "go", port: 8080, argv: goArgv, check: checkHasher, exit: 143},
	{name: "java", port: 8080, argv: javaArgv, check: checkHasher, exit: 143},
}

func TestServers(t *testing.T) {
	matrix(t, func(t *testing.T, v variant) {
		for _, s := range servers {
			t.Run(s.name, func(t *testing.T) { s.test(t, v) })
		}
	})
}

func (s *server) test(t *testing.T, v variant) {
	r := newRig(t, v, lab.Options{})
	dir := workDir(t)
	i := r.start([]string{"--cwd", dir}, s.argv(t, dir)...)
	addr := netip.AddrPortFrom(addr4, s.port)
	r.awaitPort(i, addr)
	s.check(t, r, addr)
	if s.ipv6 {
		s.check(t, r, netip.AddrPortFrom(addr6, s.port))
	}
	i.terminate(s.exit)
	i.checkStats()
}

// startServer starts server name of the matrix in an instance.
func (r *rig) startServer(t *testing.T, name string, flags ...string) (*instance, netip.AddrPort) {
	t.Helper()
	for _, s := range servers {
		if s.name != name {
			continue
		}
		dir := workDir(t)
		i := r.start(append(flags, "--cwd", dir), s.argv(t, dir)...)
		addr := netip.AddrPortFrom(addr4, s.port)
		r.awaitPort(i, addr)
		return i, addr
	}
	t.Fatalf("no server %s", name)
	return nil, netip.AddrPort{}
}

func redisArgv(t *testing.T, _ string) []string {
	return []string{need(t, "redis-server"), "--port", "6379", "--bind", "0.0.0.0", "::", "--protected-mode", "no", "--save", ""}
}

func memcachedArgv(t *testing.T, _ string) []string {
	return []string{need(t, "memcached"), "-u", "root", "-l", "0.0.0.0", "-p", "11211", "-U", "0"}
}

func pythonArgv(t *testing.T, dir string) []string {
	writeSite(t, dir)
	return []string{need(t, "python3"), "-m", "http.server", "8000"}
}

func nodeArgv(t *testing.T, dir string) []string {
	return []string{need(t, "node"), copyTestdata(t, dir, "hasher.js")}
}

func goArgv(*testing.T, string) []string { return []string{guest, "http", ":8080"} }

// javaArgv compiles a single file and runs the class.
func javaArgv(t *testing.T, dir string) []string {
	compileJava(t, dir, copyTestdata(t, dir, "Hasher.java"))
	return []string{need(t, "java"), "-Xmx256m", "-cp", dir, "Hasher"}
}

func copyTestdata(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	require.NoError(t, err)
	return writeFile(t, dir, name, b)
}
