package commandpad

import (
	"fmt"
	"strings"

	"github.com/kernelgate/kernelgate/workflow/canary"
)

// The measures of a chart, in its own units.
const (
	chartWidth  = 560
	chartHeight = 150
	chartTop    = 14  // where the highest value is drawn
	chartFoot   = 130 // and zero
)

// chart is a step chart drawn on the server: how something went over the
// windows before and after the apply, against its limits.
type chart struct {
	Title         string
	Lines         []line
	Width, Height int
	Foot          int
	Split         int    // where the window after the apply begins
	Top           string // the value at the top of the scale
	format        func(int64) string
}

// line is one measure, with its numbers over the whole windows in words.
type line struct {
	Name, Path         string
	Before, Now, Limit string // "" where there is none
	LimitY             int
	Over               bool // the limit is exceeded

	limit  int64
	values []int64 // by part, those before the apply first; below 0 nothing is known
}

// measure is how one number is read of a measurement and of its parts.
type measure struct {
	name  string
	whole func(*canary.Measurement) int64 // below 0: nothing is known
	part  func(*canary.Part) int64
	limit *int64
}

func (c *chart) add(m measure, before, after *canary.Measurement) {
	l := line{Name: m.name, limit: -1}
	if m.limit != nil {
		l.limit, l.Limit = *m.limit, c.format(*m.limit)
	}
	for _, window := range []*canary.Measurement{before, after} {
		if window == nil {
			continue
		}
		for i := range window.Parts {
			l.values = append(l.values, m.part(&window.Parts[i]))
		}
	}
	if before != nil {
		l.Before = c.format(m.whole(before))
	}
	if after != nil {
		now := m.whole(after)
		l.Now = c.format(now)
		l.Over = m.limit != nil && (now > *m.limit || now < 0) // without one good answer no limit is held
	}
	c.Lines = append(c.Lines, l)
}

// laidOut gives every line its place; split is how many parts are before the apply.
func (c chart) laidOut(split int) chart {
	c.Width, c.Height, c.Foot = chartWidth, chartHeight, chartFoot
	highest, parts := int64(1), 1
	for _, l := range c.Lines {
		parts = max(parts, len(l.values))
		for _, v := range append(l.values, l.limit) {
			highest = max(highest, v)
		}
	}
	c.Top = c.format(highest)
	x := func(part int) int { return part * chartWidth / parts }
	y := func(v int64) int { return chartFoot - int(float64(v)/float64(highest)*(chartFoot-chartTop)) }
	if split > 0 && split < parts {
		c.Split = x(split)
	}
	for i := range c.Lines {
		l := &c.Lines[i]
		l.LimitY = y(l.limit)
		l.Path = steps(l.values, x, y)
	}
	return c
}

// steps is a path: level over each part, and broken where nothing is known.
func steps(values []int64, x func(int) int, y func(int64) int) string {
	var path strings.Builder
	drawn := false
	for i, v := range values {
		if v < 0 {
			drawn = false
			continue
		}
		if !drawn {
			fmt.Fprintf(&path, "M%d %d", x(i), y(v))
		} else if v != values[i-1] {
			fmt.Fprintf(&path, "V%d", y(v))
		}
		fmt.Fprintf(&path, "H%d", x(i+1))
		drawn = true
	}
	return path.String()
}
