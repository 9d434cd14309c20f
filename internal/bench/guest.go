package bench

import (
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// guestSources are small programs that are measured or measure. In C, because a
// language's own runtime would be measured with them; nbody also in languages
// of which the runtime is to be measured.
//
//go:embed guest nbody/main.go
var guestSources embed.FS

// buildGuest compiles one of the C programs, statically, into dir.
func buildGuest(ctx context.Context, dir, name string) (path string, err error) {
	source, err := writeGuest(dir, "guest/"+name+".c")
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, name)
	return path, compile(ctx, dir, "cc", "-O2", "-static", "-pthread", "-o", path, source)
}

// writeGuest puts a source into dir.
func writeGuest(dir, source string) (path string, err error) {
	text, err := guestSources.ReadFile(source)
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, filepath.Base(source))
	return path, os.WriteFile(path, text, 0o644)
}

// compile runs a compiler in dir.
func compile(ctx context.Context, dir, name string, args ...string) error {
	compiler, err := programPath(name)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, compiler, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile %s: %w: %s", args[len(args)-1], err, out)
	}
	return nil
}

// programPath finds an installed program: Debian's own first, for version
// managers put scripts of the same names before it.
func programPath(name string) (string, error) {
	for _, dir := range []string{"/usr/bin/", "/usr/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w (make deps installs it)", err)
	}
	return filepath.Abs(path)
}
