package bench

import (
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// guestSources are small C programs that are measured or measure. In C, because
// a language's own runtime would be measured with them.
//
//go:embed guest/*.c
var guestSources embed.FS

// buildGuest compiles one of the programs, statically, into dir.
func buildGuest(ctx context.Context, dir, name string) (path string, err error) {
	source, err := guestSources.ReadFile("guest/" + name + ".c")
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, name)
	if err := os.WriteFile(path+".c", source, 0o600); err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, "cc", "-O2", "-static", "-o", path, path+".c").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("compile %s (needs gcc and libc6-dev, make deps installs them): %w: %s", name, err, out)
	}
	return path, nil
}

// programPath finds an installed program.
func programPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w (make deps installs it)", err)
	}
	return filepath.Abs(path)
}
