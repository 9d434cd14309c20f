package bench

import (
	"errors"
	"fmt"
	"image/color"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	_ "gonum.org/v1/plot/vg/vgimg" // the PNG format
)

var errNothingToPlot = errors.New("plot: no metric has a value of native, or of what stands for it, to compare with")

// colours tell systems apart, also for those who see colours differently
// (Okabe and Ito's palette).
var colours = []color.RGBA{
	{A: 255}, {R: 213, G: 94, A: 255}, {G: 114, B: 178, A: 255},
	{G: 158, B: 115, A: 255}, {R: 204, G: 121, B: 167, A: 255}, {R: 230, G: 159, A: 255},
	{R: 86, G: 180, B: 233, A: 255},
}

// shapes tell apart systems that share a colour.
var shapes = []draw.GlyphDrawer{draw.CircleGlyph{}, draw.PyramidGlyph{}, draw.BoxGlyph{}}

// row is one metric of one case in the picture.
type row struct {
	label  string
	metric *Metric
	base   string // what is 1
}

// WritePlot writes the ratios to native as a PNG picture: a row for each metric,
// a dot for each system, further right is better, on a logarithmic scale.
func (r *Report) WritePlot(path string) error {
	rows := r.rows()
	if len(rows) == 0 {
		return errNothingToPlot
	}
	p := plot.New()
	p.Title.Text = fmt.Sprintf("%s, %d CPUs, Linux %s", r.Machine.CPU, r.Machine.CPUs, r.Machine.Kernel)
	p.X.Label.Text = "times better than native, or than what the label says (log scale; right of 1 is better)"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, logTicks{}
	p.Legend.Top = true
	p.Add(plotter.NewGrid())
	if err := addDots(p, rows); err != nil {
		return fmt.Errorf("plot: %w", err)
	}
	// Some room, and never an empty range, which a logarithmic scale cannot show.
	p.X.Min, p.X.Max = p.X.Min/1.3, p.X.Max*1.3
	labels := make([]string, len(rows))
	for i, row := range rows {
		labels[i] = row.label
	}
	p.NominalY(labels...)
	height := vg.Length(len(rows)+5) * 0.6 * vg.Centimeter
	if err := p.Save(28*vg.Centimeter, height, path); err != nil {
		return fmt.Errorf("plot: %w", err)
	}
	return nil
}

// rows lists what can be compared with native, or what stands for it, the last case first, for the
// picture's rows go upwards.
func (r *Report) rows() []row {
	var rows []row
	for _, c := range r.Cases {
		for _, m := range c.Metrics {
			base, label := c.Bases[0], c.Name+" "+m.Name
			if base != (Native{}).Name() {
				label += " by " + base
			}
			if s := m.series(base); s != nil && s.Median > 0 && len(m.Systems) > 1 {
				rows = append(rows, row{label, m, base})
			}
		}
	}
	slices.Reverse(rows)
	return rows
}

// addDots adds the dots of each system, and its entry in the legend.
func addDots(p *plot.Plot, rows []row) error {
	var systems []string
	dots := map[string]plotter.XYs{}
	for y, row := range rows {
		for _, s := range row.metric.Systems {
			gain := row.metric.gain(s, row.base)
			if gain <= 0 {
				continue // a logarithm has no place for it; it is in the table
			}
			if !slices.Contains(systems, s.System) {
				systems = append(systems, s.System)
			}
			dots[s.System] = append(dots[s.System], plotter.XY{X: gain, Y: float64(y)})
		}
	}
	if err := addTargets(p, rows); err != nil {
		return err
	}
	for i, system := range systems {
		scatter, err := plotter.NewScatter(dots[system])
		if err != nil {
			return err
		}
		scatter.GlyphStyle = draw.GlyphStyle{
			Color: colours[i%len(colours)], Radius: vg.Points(4), Shape: shapes[i/len(colours)%len(shapes)],
		}
		p.Add(scatter)
		p.Legend.Add(system, scatter)
	}
	return nil
}

// addTargets adds a cross where a target by what is 1 lies, if there is one.
func addTargets(p *plot.Plot, rows []row) error {
	var crosses plotter.XYs
	for y, row := range rows {
		if limit, ok := row.metric.targetBy(row.base); ok {
			crosses = append(crosses, plotter.XY{X: row.metric.Better.gain(limit), Y: float64(y)})
		}
	}
	if len(crosses) == 0 {
		return nil
	}
	scatter, err := plotter.NewScatter(crosses)
	if err != nil {
		return err
	}
	scatter.GlyphStyle = draw.GlyphStyle{Color: color.Gray{Y: 128}, Radius: vg.Points(5), Shape: draw.CrossGlyph{}}
	p.Add(scatter)
	p.Legend.Add("target", scatter)
	return nil
}

// logTicks marks 1, 2 and 5 times the powers of ten.
type logTicks struct{}

// Ticks implements plot.Ticker.
func (logTicks) Ticks(lo, hi float64) []plot.Tick {
	var ticks []plot.Tick
	for exp := -9; exp <= 9; exp++ {
		for _, lead := range []string{"1", "2", "5"} {
			v, err := strconv.ParseFloat(fmt.Sprintf("%se%d", lead, exp), 64)
			if err == nil && v >= lo && v <= hi {
				ticks = append(ticks, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'g', -1, 64)})
			}
		}
	}
	return ticks
}
