package libos

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"gvisor.dev/gvisor/pkg/log"
)

// levels are slog's names for the Sentry's levels.
var levels = map[log.Level]slog.Level{
	log.Warning: slog.LevelWarn,
	log.Info:    slog.LevelInfo,
	log.Debug:   slog.LevelDebug,
}

// computing are systrap's warnings about a thread that computes for half a minute,
// a hundred a second, by how they start. Nothing is wrong with such a program.
var computing = []string{"Systrap task goroutine has been waiting on ThreadContext.State", "The context is still running"}

// emitter passes the Sentry's messages on to a slog.Logger.
type emitter struct{ logger *slog.Logger }

// Emit implements log.Emitter.Emit.
func (e emitter) Emit(_ int, level log.Level, at time.Time, format string, args ...any) {
	ctx, to := context.Background(), levels[level]
	if level == log.Warning && slices.ContainsFunc(computing, func(s string) bool { return strings.HasPrefix(format, s) }) {
		to = slog.LevelDebug
	}
	if e.logger.Enabled(ctx, to) {
		e.logger.Log(ctx, to, fmt.Sprintf(format, args...), "from", "sentry")
	}
}

// setLogger sends the Sentry's messages to logger, at its level.
func setLogger(logger *slog.Logger) {
	log.SetTarget(emitter{logger})
	ctx := context.Background()
	switch {
	case logger.Enabled(ctx, slog.LevelDebug):
		log.SetLevel(log.Debug)
	case logger.Enabled(ctx, slog.LevelInfo):
		log.SetLevel(log.Info)
	default:
		log.SetLevel(log.Warning)
	}
}
