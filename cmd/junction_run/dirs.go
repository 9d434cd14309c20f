package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"junction/cmd/junction_run/internal/cli"
)

// checkDirs checks the host directories of s before anything is set up.
func checkDirs(s *cli.Settings) error {
	if err := checkDir("--rootfs", s.Root, unix.R_OK|unix.X_OK); err != nil {
		return err
	}
	for _, dir := range s.ReadWrite {
		if err := checkDir("--rw", dir, unix.R_OK|unix.W_OK|unix.X_OK); err != nil {
			return err
		}
	}
	return nil
}

// checkDir checks that dir is a directory that this process may use as access says.
func checkDir(flag, dir string, access uint32) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s %s: no such directory; create it first", flag, dir)
	case err != nil:
		return fmt.Errorf("%s %s: %w; give a directory that this user may use", flag, dir, errors.Unwrap(err))
	case !info.IsDir():
		return fmt.Errorf("%s %s: not a directory; give the directory that holds it", flag, dir)
	}
	if err := unix.Faccessat(unix.AT_FDCWD, dir, access, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("%s %s: %w; change its permissions or run as root", flag, dir, err)
	}
	return nil
}
