package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"junction/internal/bench/clients"
)

// DemoOptions says how RunDemo shows an instance at work.
type DemoOptions struct {
	JunctionRun string        // path of junction_run
	Driver      string        // afxdp or tap
	Spin        time.Duration // for how long instances look for packets
	Quick       bool          // a moment of load only
	Progress    func(what string)
}

// Demo is what RunDemo has seen.
type Demo struct {
	Systems []string // the last one is native
	Modes   []string // of the instances: what was really in use
	Rows    []DemoRow
	// Switched is what loads have seen of servers that were switched; none if
	// Driver is not the one that the live switch needs.
	Switched []DemoSwitched
}

// DemoRow is one load, on an instance under each engine and on the same server native.
type DemoRow struct {
	Load string
	// Results are those of Demo.Systems.
	Results []clients.Result
}

// demoLoad is a server and what is done to it.
type demoLoad struct {
	name    string
	server  func(*runner) (Program, error)
	port    int
	clients []demoClient
	// asked and exchange are what is asked while the server is switched.
	asked    string
	exchange exchange
}

type demoClient struct {
	name string
	run  func(context.Context, *runner) (clients.Result, error)
}

// RunDemo runs the demonstration: each server in an instance and native, in turn,
// on one veth.
func RunDemo(ctx context.Context, o DemoOptions) (*Demo, error) {
	d := &Demo{}
	systems := []System{
		Junction{o.JunctionRun, o.Driver, o.Spin, "systrap"},
		Junction{o.JunctionRun, o.Driver, o.Spin, "inproc"},
		Native{},
	}
	b := benchmark{name: "demo", systems: systems, run: func(ctx context.Context, r *runner) error {
		for _, load := range demoLoads {
			if err := d.show(ctx, r, load); err != nil {
				return fmt.Errorf("%s: %w", load.name, err)
			}
		}
		if o.Driver != switchDriver {
			return nil
		}
		behind := ServerMode{o.JunctionRun, o.Driver, o.Spin}
		for _, load := range demoLoads {
			if err := d.showSwitch(ctx, r, behind, load); err != nil {
				return fmt.Errorf("%s, switched: %w", load.name, err)
			}
		}
		d.Modes = append(d.Modes, r.c.Modes[behind.Name()])
		return nil
	}}
	c := (&Report{}).newCase(b.name, "")
	err := runCase(ctx, Options{Quick: o.Quick, Progress: o.Progress}, c, b, pinning{-1, -1})
	var modes []string
	for _, s := range systems {
		d.Systems = append(d.Systems, s.Name())
		if s != (Native{}) {
			modes = append(modes, c.Modes[s.Name()])
		}
	}
	d.Modes = append(modes, d.Modes...)
	return d, err
}

// switchDriver is the driver that the live switch needs.
const switchDriver = "afxdp"

// Errors returns how many requests failed, and the first reason if it is known.
func (d *Demo) Errors() (n uint64, first error) {
	for _, r := range d.Rows {
		for _, result := range r.Results {
			n += result.Errors
		}
	}
	for _, s := range d.Switched {
		for _, p := range s.Phases {
			n += p.Result.Errors
			if first == nil {
				first = p.First
			}
		}
	}
	return n, first
}

// show loads one server under both systems.
func (d *Demo) show(ctx context.Context, r *runner, load demoLoad) error {
	p, err := load.server(r)
	if err != nil {
		return err
	}
	rows := make([]DemoRow, len(load.clients))
	for _, sys := range r.systems {
		err := r.serve(ctx, sys, p, probeTCP(r.lab, load.port), func(*server) error {
			for i, c := range load.clients {
				r.o.Progress(fmt.Sprintf("%s, %s", sys.Name(), c.name))
				result, err := c.run(ctx, r)
				if err != nil {
					return err
				}
				rows[i].Load = c.name
				rows[i].Results = append(rows[i].Results, result)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	d.Rows = append(d.Rows, rows...)
	return nil
}

var demoLoads = []demoLoad{
	{"redis-server", func(*runner) (Program, error) { return redisProgram() }, redisPort, []demoClient{
		{"redis SET, 50 connections", demoRedis("SET")},
		{"redis GET, 50 connections", demoRedis("GET")},
	}, "redis GET", getValue("0123456789")},
	{"nginx", (*runner).nginx, nginxPort, []demoClient{
		{"nginx 1 KiB file, 50 connections", demoWrk},
	}, "nginx 1 KiB file", getFile("/file", make([]byte, 1024))},
}

// demoRedis loads redis for some two seconds.
func demoRedis(test string) func(context.Context, *runner) (clients.Result, error) {
	return func(ctx context.Context, r *runner) (clients.Result, error) {
		l := redisLoad{"c50", 50, 1}
		warm, err := r.redisBenchmark(ctx, l, test, 5000)
		if err != nil {
			return warm, err
		}
		requests := 5000
		if !r.o.Quick {
			requests = max(requests, int(2*warm.PerSecond))
		}
		result, err := r.redisBenchmark(ctx, l, test, requests)
		result.Requests = uint64(requests)
		return result, err
	}
}

const (
	nginxPort = 8080
	// Its temporary folders are the case's too: natively it would give the host's
	// to another user.
	nginxConf = `daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events { worker_connections 1024; }
http {
	access_log off;
	keepalive_requests 1000000000;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	server { listen %d; root .; }
}
`
)

// nginx serves a small file of its own from the case's folder.
func (r *runner) nginx() (Program, error) {
	path, err := programPath("nginx")
	conf := filepath.Join(r.dir, "nginx.conf")
	return Program{Argv: []string{path, "-p", r.dir, "-c", conf}, Report: true}, errors.Join(err,
		os.Chmod(r.dir, 0o755),
		os.WriteFile(conf, fmt.Appendf(nil, nginxConf, nginxPort), 0o644),
		os.WriteFile(filepath.Join(r.dir, "file"), make([]byte, 1024), 0o644),
	)
}

// demoWrk loads nginx for some two seconds.
func demoWrk(ctx context.Context, r *runner) (clients.Result, error) {
	seconds := 3
	if r.o.Quick {
		seconds = 1
	}
	return r.wrk(ctx, 50, seconds, "/file")
}

// wrk loads nginx for so many seconds, and for longer if nothing was answered: to
// be slow is no error.
func (r *runner) wrk(ctx context.Context, connections, seconds int, path string) (clients.Result, error) {
	for {
		out, err := r.clientOutput(ctx, "wrk", "--threads", "1", "--connections", strconv.Itoa(connections), "--latency", "--timeout", "30s",
			"--duration", strconv.Itoa(seconds)+"s", "http://"+hostPort(nginxPort)+path)
		if err != nil {
			return clients.Result{}, err
		}
		const most = 20
		result, err := clients.ParseWrk(string(out))
		if err != nil || result.Requests > 0 || seconds > most {
			return result, err
		}
		seconds *= 4
	}
}

// WriteTable writes what was seen for people.
func (d *Demo) WriteTable(w io.Writer) error {
	fmt.Fprintf(w, "Unmodified servers in instances of junction_run and on the host's kernel, on one veth:\n\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "load\tserver\trequests\terrors\trequests/s\tp50 ms\tp99 ms\tratio\t")
	for _, r := range d.Rows {
		load, native := r.Load, r.Results[len(r.Results)-1]
		for i, result := range r.Results {
			writeDemoRow(t, load, d.Systems[i], result, ratioOf(result.PerSecond, native.PerSecond))
			load = ""
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(d.Switched) > 0 {
		if err := d.writeSwitched(w); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(w, "\nNothing was switched between modes: that needs the driver %s.\n", switchDriver)
	}
	_, err := fmt.Fprintf(w, "\nThe instances ran in mode:\n  %s\nratio: requests/s by native's.\n", strings.Join(d.Modes, "\n  "))
	return err
}

func ratioOf(value, native float64) string {
	if native <= 0 {
		return ratio(0)
	}
	return ratio(value / native)
}

func writeDemoRow(w io.Writer, load, system string, r clients.Result, ratio string) {
	fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%.3f\t%.3f\t%s\t\n",
		load, system, r.Requests, r.Errors, number(r.PerSecond), r.P50/1000, r.P99/1000, ratio)
}
