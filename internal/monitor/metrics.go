package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"junction/internal/monitor/wire"
	"junction/netserver"
)

// serveMetrics serves Prometheus at addr until ctx is done.
func (m *Monitor) serveMetrics(ctx context.Context, addr string) error {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(collector{ctx, m}); err != nil {
		return errors.Join(err, l.Close())
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	const headers = 5 * time.Second
	server := &http.Server{Handler: mux, ReadHeaderTimeout: headers}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	m.opts.Logger.Info("metrics", "address", l.Addr().String())
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}

// collector reads the state anew for each scrape.
type collector struct {
	ctx context.Context
	m   *Monitor
}

// What is measured.
var (
	descInstances = prometheus.NewDesc("junction_instances", "Instances that have a lease.", nil, nil)
	descPorts     = prometheus.NewDesc("junction_ports", "Ports that an instance owns.", []string{"id", "name"}, nil)
	descRefused   = prometheus.NewDesc("junction_ports_refused_total", "Ports refused to an instance because it has its share.", []string{"id", "name"}, nil)
	descReady     = prometheus.NewDesc("junction_netserver_ready", "1 if a network server forwards.", nil, nil)
	descRestarts  = prometheus.NewDesc("junction_netserver_restarts_total", "Network servers started in place of another.", nil, nil)
	descHangs     = prometheus.NewDesc("junction_netserver_hangs_total", "Network servers killed because they hung.", nil, nil)
	descOffences  = prometheus.NewDesc("junction_offences_total", "What peers did that no honest one does.", []string{"name", "kind"}, nil)
	descFrames    = prometheus.NewDesc("junction_frames_total",
		"Frames of a source by what became of them: in + made = out + answered + all drops.", []string{"source", "name", "event"}, nil)
	descBytes = prometheus.NewDesc("junction_received_bytes_total", "Bytes of a source's frames.", []string{"source", "name"}, nil)
	descDrops = prometheus.NewDesc("junction_dropped_frames_total", "Frames of a source dropped, by reason.", []string{"source", "name", "reason"}, nil)
)

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descInstances, descPorts, descRefused, descReady, descRestarts, descHangs, descOffences, descFrames, descBytes, descDrops} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s := c.m.Status()
	gauge(descInstances, float64(len(s.Instances)))
	ready := 0.0
	if s.Server.Ready {
		ready = 1
	}
	gauge(descReady, ready)
	count(out, descRestarts, s.Server.Restarts)
	count(out, descHangs, s.Server.Hangs)
	for _, o := range s.Offences {
		count(out, descOffences, o.Count, o.Name, o.Kind)
	}
	ports := make(map[uint32]int)
	for _, p := range c.m.portStatus() {
		ports[p.ID]++
	}
	for _, i := range s.Instances {
		gauge(descPorts, float64(ports[i.ID]), strconv.Itoa(int(i.ID)), i.Name)
		count(out, descRefused, i.PortsRefused, strconv.Itoa(int(i.ID)), i.Name)
	}
	answer, err := c.m.askServer(c.ctx, wire.Ask{Verb: "stats"})
	var stats netserver.Stats
	if err != nil || json.Unmarshal(answer, &stats) != nil {
		return // between two servers there are none
	}
	traffic(out, "uplink", "", stats.Uplink)
	traffic(out, "left", "", stats.Gone)
	for id, p := range stats.Ports {
		traffic(out, strconv.Itoa(int(id)), p.Name, p.AccountStats)
	}
}

func count(out chan<- prometheus.Metric, d *prometheus.Desc, n uint64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func traffic(out chan<- prometheus.Metric, source, name string, a netserver.AccountStats) {
	for event, n := range map[string]uint64{"in": a.In, "made": a.Made, "out": a.Out, "answered": a.Answered} {
		count(out, descFrames, n, source, name, event)
	}
	count(out, descBytes, a.InBytes, source, name)
	for reason, n := range a.Drops {
		count(out, descDrops, n, source, name, reason)
	}
}
