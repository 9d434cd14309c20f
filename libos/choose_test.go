package libos

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/libos/engine"
)

func TestChoose(t *testing.T) {
	fine := func(string) error { return nil }
	broken := func(string) error { return errors.New("the kernel has no such thing") }
	for _, tc := range []struct {
		c     chooser
		asked string
		want  Choice
	}{
		{chooser{true, broken}, engine.Inproc, Choice{engine.Inproc, "asked for", false}}, // and fails to start, with its reason
		{chooser{true, fine}, engine.Systrap, Choice{engine.Systrap, "asked for", false}},
		{chooser{true, fine}, Auto, Choice{engine.Inproc, "the best that this host allows", false}},
		{chooser{true, broken}, Auto, Choice{engine.Systrap, "inproc cannot be used: the kernel has no such thing", true}},
		{chooser{false, broken}, Auto, Choice{engine.Systrap, "the default; inproc is experimental and must be asked for", false}},
	} {
		require.Equal(t, tc.want, tc.c.choose(tc.asked))
	}
}
