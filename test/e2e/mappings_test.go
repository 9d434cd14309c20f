package e2e

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func buildMappings(t *testing.T) string {
	program := filepath.Join(workDir(t), "mappings")
	require.NoError(t, tool(need(t, "gcc"), "-O1", "-Wall", "-Werror", "-o", program, "testdata/mappings.c"))
	return program
}

// TestManyMappings: a program with more mappings than the host lets one process
// have goes on; in the libOS's process they are given up and made again. (systrap
// has no answer to that: the program dies.)
func TestManyMappings(t *testing.T) {
	require.Equal(t, "goes on\n", mustRun(t, isolated("inproc"), buildMappings(t)))
}

// TestFileCutOff: a page whose file the host has cut off is a SIGBUS.
func TestFileCutOff(t *testing.T) {
	program := buildMappings(t)
	eachEngine(t, func(t *testing.T, engine string) {
		dir := workDir(t)
		file := filepath.Join(dir, "file")
		require.NoError(t, os.WriteFile(file, make([]byte, 8192), 0o644))
		c := command(isolated(engine, "--rw", dir), program, file)
		stdin, err := c.StdinPipe()
		require.NoError(t, err)
		i := launch(t, c, c)
		i.await("first 0")
		require.NoError(t, os.Truncate(file, 0))
		_, err = io.WriteString(stdin, "\n")
		require.NoError(t, err)
		require.Equal(t, 128+7, i.exit())
	})
}
