package schedsim

import (
	"errors"
	"fmt"
	"image/color"
	"os"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// colours are Okabe and Ito's, for those who see colours differently.
var colours = []color.RGBA{
	{A: 255}, {R: 213, G: 94, A: 255}, {G: 114, B: 178, A: 255}, {G: 158, B: 115, A: 255},
	{R: 204, G: 121, B: 167, A: 255}, {R: 230, G: 159, A: 255}, {R: 86, G: 180, B: 233, A: 255}, {R: 120, G: 120, B: 120, A: 255},
}

var errNoPoints = errors.New("plot: no point")

// WritePlot draws all figures by load as a PNG picture.
func (r *Report) WritePlot(path string) (err error) {
	if len(r.Points) == 0 {
		return errNoPoints
	}
	const columns = 2
	rows := (len(figures) + columns - 1) / columns
	img := vgimg.New(columns*16*vg.Centimeter, vg.Length(rows)*11*vg.Centimeter)
	tiles := draw.Tiles{Rows: rows, Cols: columns, PadX: vg.Millimeter * 6, PadY: vg.Millimeter * 6, PadTop: vg.Millimeter * 4, PadRight: vg.Millimeter * 4}
	canvas := draw.New(img)
	for i, f := range figures {
		p, err := r.draw(f)
		if err != nil {
			return fmt.Errorf("plot: %w", err)
		}
		p.Draw(tiles.At(canvas, i%columns, i/columns))
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	_, err = vgimg.PngCanvas{Canvas: img}.WriteTo(file)
	return err
}

func (r *Report) draw(f figure) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = fmt.Sprintf("%s (%s, %d cores, %s)", f.title, r.Workload, r.Cores, r.Cost)
	p.X.Label.Text = "offered load"
	p.Legend.Top, p.Legend.Left = true, true
	if f.log {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	p.Add(plotter.NewGrid())
	for i, name := range r.policies() {
		var line plotter.XYs
		for k := range r.Points {
			if pt := &r.Points[k]; pt.Policy == name && (!f.log || f.value(pt) > 0) {
				line = append(line, plotter.XY{X: pt.Load, Y: f.value(pt)})
			}
		}
		if len(line) == 0 {
			continue
		}
		l, err := plotter.NewLine(line)
		if err != nil {
			return nil, err
		}
		l.Color, l.Width = colours[i%len(colours)], vg.Points(1.5)
		p.Add(l)
		p.Legend.Add(name, l)
	}
	if f.log {
		p.Y.Min, p.Y.Max = p.Y.Min/1.3, p.Y.Max*1.3
	}
	return p, nil
}
