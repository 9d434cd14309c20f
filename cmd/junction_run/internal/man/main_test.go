package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man1")
	require.NoError(t, run([]string{dir}))
	page, err := os.ReadFile(filepath.Join(dir, "junction_run.1"))
	require.NoError(t, err)
	for _, want := range []string{`.TH "JUNCTION_RUN" "1"`, `\fB--ip\fP=CIDR`, `\fB--strace\fP`, "Exit status"} {
		require.Contains(t, string(page), want)
	}

	again := t.TempDir()
	require.NoError(t, run([]string{again}))
	same, err := os.ReadFile(filepath.Join(again, "junction_run.1"))
	require.NoError(t, err)
	require.Equal(t, page, same)

	require.EqualError(t, run(nil), "0 arguments; give the directory for the pages")
}
