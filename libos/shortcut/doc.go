// Package shortcut serves system calls and page faults of programs without
// going back to the Sentry's task loop. It stands around an execution platform
// as one more: a call that its Switch comes back with is executed right there,
// by the function in the Sentry's own table, and the program is entered again.
//
// What the loop does beside that is only for tasks that are traced, filtered by
// seccomp, stopped or about to get a signal; those go its way, as do calls that
// end in something else than a result (exec, exit, clone). Else it costs more
// than most calls do: it accounts for who has the processor with locked
// instructions, four each way.
package shortcut
