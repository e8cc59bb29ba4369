"""The numbers of the rules for training logs: each stands once, for the rule and for the words about it.

"Noise" is the standard deviation of a loss about its curve (`noise.scale`), "level" a median of neighbouring rows.
`tests/simulations/curve_truth.py` says how often the rules are right with them.
"""

from __future__ import annotations

# not-finite
BAD_GRADIENTS = 0.05  # share of rows; loss scaling skips a step now and then, which is no fault

# nothing-trained and uniform: rows on end that do not vary
FEWEST_ZEROS = 3
FEWEST_EQUAL = 5
EQUAL_NATS = 0.001
NEAR_UNIFORM = 0.005  # nats from ln V
ROSE_TO_UNIFORM = 0.1  # nats above the lowest loss, where V is not known
TIMES_QUIETER = 3.0  # the noise before them over their spread

# fp16-overflow
LOW_SCALE = 128.0
HALVINGS = 3

# spikes
SPIKE_NOISE = 7.0
SPIKE_LEVEL = 0.1  # share of the level
SPIKE_ROWS = 0.02  # share of the log's rows that one spike lasts at most
FEWEST_FOR_SPIKES = 20  # rows
SPIKE_NEIGHBOURS = 15  # rows on each side that say what is ordinary there

# explosion
RISE_NOISE = 8.0
RISE_LEVEL = 0.2  # share of the lowest level
RISE_LEVEL_FEW = 0.5  # the same of a log with few rows, whose noise is hardly known
RISE_FEW = 20  # rows
RISE_NATS = 0.05
RISE_ROWS = 0.05  # share of the log's rows that it lasts at least, if it comes back

# not-learning and plateau
FALL_LEVEL = 0.02  # share of the first level
UNTRAINED_NATS = 4.0  # a level of a model that has not learned a language, where V is not known
UNTRAINED_SHARE = 0.8  # of ln V
UNTRAINED_START = 6.0  # nats that an untrained model begins with at least, where V is not known; else 0.9 ln V
UNTRAINED_START_SHARE = 0.9
FEWEST_STEPS = 100
FLAT_LEVEL = 0.005  # share of the level, over the last third
FLAT_AT_MOST = 0.02  # the same, ends of the interval
FELL_BEFORE = 0.05  # share of the first level
RATE_LEFT = 0.3  # of the highest learning rate, on average over the last third

# oscillation
FEWEST_FOR_CYCLES = 64  # rows
CYCLES = 8
OPPOSITE = -0.3  # correlation half a cycle on
REPEATED = 0.25  # correlation a cycle on

# learning rates
FULL_RATE = 0.5  # of the highest
EARLY_ROWS = 0.25  # share of the rows
ABOVE_START = 0.1  # share of the first loss
BENT = 0.15  # of the fall: how far a straight line may miss
MOST_FALLEN = 0.3  # of the first level
STUCK_ROWS = 0.25  # share of the rows
STUCK_LEVEL = 0.04  # share of the level by which it may fall: a model that learns falls faster there
STUCK_SHARE = 0.7  # of ln V: about the loss of tokens without their context
STUCK_NATS = 7.0  # where V is not known, or the same share of a first loss of 6 nats or more if that is less
IDLE_ROWS = 0.1  # share of the rows with a rate of 0

# over-fitting
FEWEST_AFTER = 2  # evaluations after the lowest
OVERFIT_LEVEL = 0.01  # share of the lowest
FEWEST_FOR_NOISE = 6  # evaluations

# two measures of one loss
FEWEST_PAIRS = 3
FEWEST_FOR_GAP = 4
FEWEST_ROWS_FOR_GAP = 20  # training rows: the mean of a whole run so far lies far behind where there are fewer
UNIT_RATIO = 0.03  # relative, around ln 2 and 1 / ln 2
STEADY_RATIO = 0.05  # relative spread over the run
FALL_FOR_RATIO = 0.15  # share of the first loss
GAP_LEVEL = 0.1  # share of the training loss
WHOLE_RATIO = 0.06  # relative, around whole numbers
SMOOTHED_SHARES = (0.02, 0.4)  # ε
SMOOTHED_GAP = 0.08  # share of the validation loss
SMOOTHED_MEETS = (0.75, 3.0)  # of ln V: where both losses would be equal
SMOOTHED_FIT = 0.25  # root mean square error over the range of the gap

# wrong-start
ABOVE_UNIFORM = 1.0  # nats
BELOW_UNIFORM = 0.1
NO_PRETRAINED = 0.6  # of ln V: a pretrained model starts below
FIRST_STEPS = 1
NEAR_WHOLE = 0.1  # a first loss of so many times ln V, but for this: an untrained one may lie 0.5 nats above

# memorising
FEWEST_PER_EPOCH = 10  # rows
EDGE_NOISE = 4.0  # standard errors
EDGE_LEVEL = 0.2  # share of the level at the end of the first epoch, all edges together
EDGE_SHARE = 0.5  # of the fall after the first epoch

# restart-jump
JUMP_NOISE = 5.0  # standard errors
JUMP_LEVEL = 0.02  # share of the level
JUMP_ROWS = 20
