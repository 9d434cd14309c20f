package libos

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"gvisor.dev/gvisor/pkg/log"
)

// levels are slog's names for the Sentry's levels.
var levels = map[log.Level]slog.Level{
	log.Warning: slog.LevelWarn,
	log.Info:    slog.LevelInfo,
	log.Debug:   slog.LevelDebug,
}

// emitter passes the Sentry's messages on to a slog.Logger.
type emitter struct{ logger *slog.Logger }

// Emit implements log.Emitter.Emit.
func (e emitter) Emit(_ int, level log.Level, at time.Time, format string, args ...any) {
	ctx := context.Background()
	if e.logger.Enabled(ctx, levels[level]) {
		e.logger.Log(ctx, levels[level], fmt.Sprintf(format, args...), "from", "sentry")
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
