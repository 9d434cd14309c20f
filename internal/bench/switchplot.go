package bench

import (
	"errors"
	"fmt"
	"image/color"
	"os"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// writeSwitchPlot draws the throughput by file size and by share.
func writeSwitchPlot(r *Report, path string) (err error) {
	var plots []*plot.Plot
	for _, c := range r.Cases {
		var p *plot.Plot
		var err error
		switch c.Name {
		case caseBlocks:
			p, err = c.plotBlocks(r.Quick)
		case caseShares:
			p, err = c.plotShares(r.Quick)
		default:
			continue
		}
		if err != nil {
			return fmt.Errorf("plot: %w", err)
		}
		plots = append(plots, p)
	}
	if len(plots) == 0 {
		return errNothingToPlot
	}
	img := vgimg.New(vg.Length(len(plots))*16*vg.Centimeter, 11*vg.Centimeter)
	const pad = 4 * vg.Millimeter
	tiles := draw.Tiles{Rows: 1, Cols: len(plots), PadX: pad, PadTop: pad, PadRight: pad, PadBottom: pad, PadLeft: pad}
	canvas := draw.New(img)
	for i, p := range plots {
		p.Draw(tiles.At(canvas, i, 0))
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	_, err = vgimg.PngCanvas{Canvas: img}.WriteTo(file)
	return err
}

// median is a series' median, and 0 if it was not measured.
func (c *Case) median(metric, series string) float64 {
	if s := c.metric(metric, Higher).series(series); s != nil {
		return s.Median
	}
	return 0
}

// plotBlocks draws the throughput of the modes by file size.
func (c *Case) plotBlocks(quick bool) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = "nginx, 20 connections: throughput by file size"
	p.X.Label.Text, p.Y.Label.Text = "file, KiB", "Gbit/s"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, fileTicks(switchFiles(quick))
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	for i, series := range []string{Native{}.Name(), "server", hybrid, "direct"} {
		var line plotter.XYs
		for _, kib := range switchFiles(quick) {
			if rate := c.median(fmt.Sprintf("%dkib_%s", kib, throughput), series); rate > 0 {
				const bits = 1024 * 8 / 1e9
				line = append(line, plotter.XY{X: float64(kib), Y: rate * float64(kib) * bits})
			}
		}
		if err := addLine(p, series, line, i); err != nil {
			return nil, err
		}
	}
	p.Y.Min, p.Y.Max = 0, p.Y.Max*1.25 // room for the legend
	return p, nil
}

// plotShares draws the throughput by the share of requests in direct mode.
func (c *Case) plotShares(quick bool) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = fmt.Sprintf("nginx, 20 connections, files of %d KiB", shareFile)
	p.X.Label.Text, p.Y.Label.Text = "requests in direct mode, %", "thousand requests/s"
	p.Add(plotter.NewGrid())
	var line plotter.XYs
	for _, share := range shares(quick) {
		if rate := c.median(throughput, shareName(share)); rate > 0 {
			line = append(line, plotter.XY{X: float64(share), Y: rate / 1e3})
		}
	}
	if err := addLine(p, "", line, 1); err != nil {
		return nil, err
	}
	p.Y.Min, p.Y.Max = 0, p.Y.Max*1.25 // room for the legend
	return p, nil
}

// addLine adds a line through its points, if there are any.
func addLine(p *plot.Plot, name string, line plotter.XYs, number int) error {
	if len(line) == 0 {
		return nil
	}
	l, points, err := plotter.NewLinePoints(line)
	if err != nil {
		return err
	}
	var c color.Color = colours[number]
	l.Color, points.Color, points.Shape = c, c, draw.CircleGlyph{}
	l.Width = vg.Points(1.5)
	p.Add(l, points)
	if name != "" {
		p.Legend.Add(name, l, points)
	}
	return nil
}

// fileTicks marks the sizes of files.
type fileTicks []int

// Ticks implements plot.Ticker.
func (f fileTicks) Ticks(lo, hi float64) []plot.Tick {
	var ticks []plot.Tick
	for _, kib := range f {
		if v := float64(kib); v >= lo && v <= hi {
			ticks = append(ticks, plot.Tick{Value: v, Label: strconv.Itoa(kib)})
		}
	}
	return ticks
}
