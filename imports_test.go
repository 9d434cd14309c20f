// Package junction_test checks rules that hold for the repository as a whole.
package junction_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// allowed lists which of our packages each package may import, as the table
// in ARCHITECTURE.md does: from the ground up, no cycles, no short cuts. A
// key stands for its folder and all below it; "*" means any.
var allowed = map[string][]string{
	"ipc":               {},
	"portmap":           {},
	"direct":            {"portmap"},
	"netserver":         {"ipc", "portmap", "direct"},
	"internal/version":  {},
	"internal/manpage":  {},
	"internal/samefile": {},
	"internal/usage":    {},
	"switch":            {"ipc", "direct"},
	"libos":             {"switch", "internal/samefile"},
	"coresched":         {"ipc"},
	"internal/monitor":  {"ipc", "portmap", "direct", "netserver", "switch", "coresched", "internal/config"},
	"internal/lab":      {},
	"internal/config":   {},
	"internal/bench":    {"internal/lab", "internal/monitor", "ipc", "netserver", "direct", "switch", "libos", "coresched"},
	"cmd":               {"*"},
	"test":              {"internal/lab", "internal/config", "ipc", "internal/monitor"},
}

// inTests may be imported by any test besides what its package may import.
var inTests = []string{"internal/lab", "direct", "switch"}

type pkg struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func TestImportOrder(t *testing.T) {
	checked := 0
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, "junction/")
		if name == p.ImportPath {
			continue // the root, which holds only this test
		}
		checked++
		rule, ok := owner(name)
		require.True(t, ok, "package %s has no place in the import order: add it to ARCHITECTURE.md and here", name)
		for _, imp := range p.Imports {
			require.True(t, permitted(rule, imp, nil), "%s must not import %s", name, imp)
		}
		for _, imp := range append(p.TestImports, p.XTestImports...) {
			require.True(t, permitted(rule, imp, inTests), "the tests of %s must not import %s", name, imp)
		}
	}
	require.NotZero(t, checked)
}

// owner returns the key of allowed that name lies under.
func owner(name string) (string, bool) {
	for {
		if _, ok := allowed[name]; ok {
			return name, true
		}
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			return "", false
		}
		name = name[:i]
	}
}

// permitted tells whether packages under rule may import imp.
func permitted(rule, imp string, also []string) bool {
	name, ours := strings.CutPrefix(imp, "junction/")
	if !ours || under(name, rule) {
		return true
	}
	for _, a := range append(append([]string{}, allowed[rule]...), also...) {
		if a == "*" || under(name, a) {
			return true
		}
	}
	return false
}

func under(name, dir string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }

func listPackages(t *testing.T) []pkg {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...").Output()
	require.NoError(t, err)
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else {
			require.NoError(t, err)
		}
		pkgs = append(pkgs, p)
	}
}
