package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/coresched/plugin"
	"junction/coresched/policies"
)

func build(t *testing.T, dir, out string) string {
	bin := filepath.Join(t.TempDir(), out)
	cmd := exec.Command("go", "build", "-mod=mod", "-o", bin, ".")
	cmd.Dir = dir
	text, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", text)
	return bin
}

// started checks that a program is a policy that can be started.
func started(t *testing.T, cmd *exec.Cmd, name string) {
	page, err := plugin.NewPage()
	require.NoError(t, err)
	defer page.Close()
	p, err := plugin.Start(cmd, page, os.Stderr, 0)
	require.NoError(t, err)
	defer p.Kill()
	require.Equal(t, name, p.Traits.Name)
}

func TestServesAnyPolicy(t *testing.T) {
	bin := build(t, ".", "junction_policy")
	for _, name := range policies.Names() {
		started(t, exec.Command(bin, name), name)
	}
	started(t, exec.Command(bin, "shinjuku", "--param", "slice=10us", "--spin", "20us"), "shinjuku")
	out, err := exec.Command(bin, "sol").CombinedOutput()
	require.Error(t, err, "by hand")
	require.NotEmpty(t, out)
}

// The example is a program of its own module that needs nothing but the public
// packages, and is as short as it claims.
func TestExample(t *testing.T) {
	const dir = "../../coresched/plugin/example"
	text, err := os.ReadFile(filepath.Join(dir, "main.go"))
	require.NoError(t, err)
	started(t, exec.Command(build(t, transplant(t, dir, text), "example")), "lifo")
	require.Less(t, bytes.Count(text, []byte("\n")), 60)
}

// transplant copies the example out of the repository, as a third party has it,
// with the versions of modules that the repository has today.
func transplant(t *testing.T, dir string, text []byte) string {
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	require.NoError(t, err)
	require.Contains(t, string(mod), "=> ../../..")
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	require.NoError(t, err)
	to := t.TempDir()
	for name, b := range map[string][]byte{
		"main.go": text, "go.sum": sums, "go.mod": bytes.ReplaceAll(mod, []byte("=> ../../.."), []byte("=> "+root)),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(to, name), b, 0o600))
	}
	return to
}

func TestCommand(t *testing.T) {
	var out bytes.Buffer
	cmd := newCommand()
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"--list"})
	require.NoError(t, cmd.Execute())
	require.Equal(t, policies.Names(), strings.Fields(out.String()))
	for _, args := range [][]string{{}, {"lottery"}, {"sol", "--param", "x"}, {"sol", "--spin", "-1s"}, {"a", "b"}} {
		cmd := newCommand()
		cmd.SetArgs(args)
		require.Error(t, cmd.Execute(), "%v", args)
	}
}
