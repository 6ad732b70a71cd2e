package commandpad

import "github.com/kernelgate/kernelgate/workflow/canary"

// The measures of a chart, in its own units.
const (
	chartWidth = 560
	chartLeft  = 60  // where bars begin
	chartRoom  = 380 // for the longest bar
	barHeight  = 12
	rowHeight  = 44
)

// chart is a bar chart drawn on the server: for each name what was measured
// before and after the apply, and the limit as a line.
type chart struct {
	Title         string
	Format        func(int64) string
	Rows          []chartRow
	Width, Height int
}

type chartRow struct {
	Name                     string
	Y, NameY                 int
	Bars                     []bar
	Limit                    int64
	Limited                  bool
	LimitX, LimitY1, LimitY2 int
	Over                     bool // the limit is exceeded
}

type bar struct {
	Class, Label        string // before or after
	Value               int64
	X, Y, Width, Height int
	TextX, TextY        int
}

func (c *chart) add(name string, now int64, before *canary.Measurement, of func(*canary.Measurement) int64, limit *int64, judged bool) {
	row := chartRow{Name: name}
	if limit != nil {
		row.Limit, row.Limited = *limit, true
	}
	if before != nil {
		row.Bars = append(row.Bars, bar{Class: "before", Label: "before", Value: of(before)})
	}
	if judged {
		row.Bars = append(row.Bars, bar{Class: "after", Label: "after", Value: now})
		row.Over = row.Limited && now > row.Limit
	}
	c.Rows = append(c.Rows, row)
}

// laidOut gives every bar its place. All rows have one scale.
func (c chart) laidOut() chart {
	longest := int64(1)
	for _, row := range c.Rows {
		longest = max(longest, row.Limit)
		for _, b := range row.Bars {
			longest = max(longest, b.Value)
		}
	}
	scale := func(v int64) int { return int(float64(v) / float64(longest) * chartRoom) }
	for i := range c.Rows {
		row := &c.Rows[i]
		row.Y = i * rowHeight
		row.NameY = row.Y + rowHeight/2
		for j := range row.Bars {
			b := &row.Bars[j]
			b.X, b.Y, b.Width, b.Height = chartLeft, row.Y+8+j*(barHeight+4), max(scale(b.Value), 2), barHeight
			b.TextX, b.TextY = b.X+b.Width+6, b.Y+barHeight-2
		}
		if row.Limited {
			row.LimitX, row.LimitY1, row.LimitY2 = chartLeft+scale(row.Limit), row.Y+4, row.Y+rowHeight-4
		}
	}
	c.Width, c.Height = chartWidth, len(c.Rows)*rowHeight
	return c
}
