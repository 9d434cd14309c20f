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
		probe func(string) error
		asked string
		want  Choice
	}{
		{broken, engine.Inproc, Choice{engine.Inproc, "asked for", false}}, // and fails to start, with its reason
		{fine, engine.Systrap, Choice{engine.Systrap, "asked for", false}},
		{fine, Auto, Choice{engine.Inproc, "the best that this host allows", false}},
		{broken, Auto, Choice{engine.Systrap, "inproc cannot be used: the kernel has no such thing", true}},
	} {
		require.Equal(t, tc.want, choice(tc.asked, tc.probe))
	}
}
