package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// UsageError is a mistake on the command line or in the configuration file.
// Its text is one line: what is wrong, with what, and what to do.
type UsageError struct{ err error }

func (e *UsageError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *UsageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &UsageError{fmt.Errorf(format, args...)}
}

// flagError words a mistake that pflag found.
func flagError(err error) error {
	var value *pflag.InvalidValueError
	var missing *pflag.ValueRequiredError
	var unknown *pflag.NotExistError
	switch {
	case errors.As(err, &value):
		return usagef("--%s %q: %w", value.GetFlag().Name, value.GetValue(), value.Unwrap())
	case errors.As(err, &missing):
		return usagef("--%s needs a value; see junction_run --help", missing.GetSpecifiedName())
	case errors.As(err, &unknown):
		return usagef("%w; see junction_run --help (the program's own flags go after --)", err)
	}
	return usagef("%w; see junction_run --help", err)
}

// WantsJSON tells whether args ask for errors as JSON. It looks at the bare
// words, for it must also know when the flags cannot be parsed.
func WantsJSON(args []string) bool {
	if i := slices.Index(args, "--"); i >= 0 {
		args = args[:i]
	}
	for i, a := range args {
		if a == "--json" || a == "--json=true" || a == "--log=json" || a == "--log" && i+1 < len(args) && args[i+1] == "json" {
			return true
		}
	}
	return false
}

// OneLine folds an error's text into one line.
func OneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
