package clients

import (
	"encoding/csv"
	"errors"
	"fmt"
	"strings"
)

// ParseRedisBenchmark reads the output of `redis-benchmark --csv` (version 7):
// one result for each test, by its name, for example GET. redis-benchmark gives
// up at the first error reply, so there are never any errors to report.
func ParseRedisBenchmark(out string) (map[string]Result, error) {
	r := csv.NewReader(strings.NewReader(out))
	rows, err := r.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("redis-benchmark: %w: %w", ErrOutput, err)
	}
	if len(rows) < 2 {
		return nil, fmt.Errorf("redis-benchmark: %w: no result", ErrOutput)
	}
	column := map[string]int{}
	for i, name := range rows[0] {
		column[name] = i
	}
	results := map[string]Result{}
	for _, row := range rows[1:] {
		name, result, err := redisRow(column, row)
		if err != nil {
			return nil, fmt.Errorf("redis-benchmark: %w", err)
		}
		results[name] = result
	}
	return results, nil
}

func redisRow(column map[string]int, row []string) (string, Result, error) {
	var errs []error
	text := func(name string) string {
		i, ok := column[name]
		if !ok {
			errs = append(errs, fmt.Errorf("%w: no column %s", ErrOutput, name))
			return "0"
		}
		return row[i] // the csv package has checked that rows are equally long
	}
	number := func(name string) float64 {
		f, err := positive(text(name))
		errs = append(errs, err)
		return f
	}
	result := Result{
		PerSecond: number("rps"),
		P50:       number("p50_latency_ms") * 1000,
		P99:       number("p99_latency_ms") * 1000,
	}
	name := text("test")
	return name, result, errors.Join(errs...)
}
