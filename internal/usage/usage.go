// Package usage tells mistakes on a command line from failures: the former end a
// program with exit code 2, as they end a shell's own commands, and say what is right.
package usage

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// Exit codes of all commands, but for a program's own.
const (
	ExitFailed = 1
	ExitWrong  = 2
)

// Error is a mistake on the command line.
type Error struct{ error }

// Unwrap gives what is wrong.
func (e Error) Unwrap() error { return e.error }

// Errorf makes an Error, as fmt.Errorf does.
func Errorf(format string, args ...any) error { return Error{fmt.Errorf(format, args...)} }

// Wrap makes err, unless it is nil, an Error.
func Wrap(err error) error {
	if err == nil {
		return nil
	}
	return Error{err}
}

// ExitCode is that of a program that ends with err.
func ExitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.As(err, new(Error)):
		return ExitWrong
	}
	return ExitFailed
}

// Explain has wrong arguments and flags of cmd, and of all commands below it,
// answered by an Error that says what is right. It is called once, when cmd is
// complete.
func Explain(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(at *cobra.Command, err error) error {
		return Errorf("%w; see %s --help", err, at.CommandPath())
	})
	for _, sub := range cmd.Commands() {
		Explain(sub)
	}
	check := cmd.Args
	if check == nil {
		return
	}
	cmd.Args = func(at *cobra.Command, args []string) error {
		err := check(at, args)
		if err == nil {
			err = at.ValidateRequiredFlags() // cobra's own check comes later
		}
		if err != nil {
			return Errorf("%w; usage: %s", err, at.UseLine())
		}
		return nil
	}
}
