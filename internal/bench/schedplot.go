package bench

// writeSchedPlot draws what redis and the batch job have of each other.
func writeSchedPlot(r *Report, path string) error { return r.WritePlot(path) }
