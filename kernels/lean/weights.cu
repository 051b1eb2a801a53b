// Weight gradients of the lean convolution in one pass over X and dY.
//
//   dA[f, c]    = sum over p of dY[f](p) U[c](p)            U = relu(scale X + shift), or X
//   dB[t, f, c] = sum over p of dY[f](p) U[c](p + t)        c in the group of f
//   db[f]       = sum over p of dY[f](p)
//
// Block (s, j) does job j, the square of BLOCK features x BLOCK channels from (f0, c0), on the pixel tiles
// s, s + S, s + 2 S ...; while it works on one tile the copies of the next are on their way. Its sums stay
// in registers until the end and then go to workspace[s][j]; weights_sum.cu adds over s, always in the
// same order. A job with an offset (dh, dw) reads dY[p - offset]: the gradient of one dense tap. A job on
// the diagonal has the taps, too, and about twice the work: there each of two takes every second tile.
#define WITHOUT 0
#define DEPTHWISE 1
#define BAND 2
#include "weights_taps.h"

constexpr int WORDS = BLOCK * BLOCK + BLOCK + TAPS * TAP_WORDS;  // of a job in the workspace

struct Job { int feature, channel, row, column, share, shares; };

// total[i] = sum over slices of slices[slice][i], after all threads have written theirs.
DEVICE void add_slices(float* total, const float* slices, int count, int size) {
  __syncthreads();
  for (int i = threadIdx.x; i < size; i += THREADS) {
    float sum = 0.f;
    for (int s = 0; s < count; s++) sum += slices[s * size + i];
    total[i] = sum;
  }
  __syncthreads();
}

DEVICE void spread_centre(const Centre& centre, float* slices, int warp, int lane) {
  int square = warp % SQUARES, slice = warp / SQUARES;
  int feature = square / (BLOCK / SIDE) * SIDE, channel = square % (BLOCK / SIDE) * SIDE;
#pragma unroll
  for (int m = 0; m < MS; m++)
#pragma unroll
    for (int n = 0; n < NS; n++)
#pragma unroll
      for (int i = 0; i < 4; i++)
        slices[(slice * BLOCK + feature + m * 16 + fragment_row(lane, i)) * BLOCK + channel + n * 8 + fragment_column(lane, i)] = centre.sum[m][n][i];
}

// Every column of the bias product is the same sum; the first one of the first square in a row counts.
DEVICE void spread_bias(const Centre& centre, float* slices, int warp, int lane) {
  int square = warp % SQUARES, slice = warp / SQUARES;
  if (square % (BLOCK / SIDE) || lane % 4) return;
#pragma unroll
  for (int m = 0; m < MS; m++)
#pragma unroll
    for (int i = 0; i < 4; i += 2)
      slices[slice * BLOCK + square / (BLOCK / SIDE) * SIDE + m * 16 + fragment_row(lane, i)] = centre.bias[m][i];
}

KERNEL(THREADS, BLOCKS)
lean_weights(const Element* __restrict__ dy, const Element* __restrict__ x, const float* __restrict__ scale, const float* __restrict__ shift,
             const Job* __restrict__ jobs, float* __restrict__ workspace, int prologue, int relu, int bias, int dy_whole, int x_whole,
             int images, int height, int width, int features, int channels, int dy_row, int dy_pixel) {
  SHARED_MEMORY(memory);
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  Job job = jobs[blockIdx.y];
  Map from = {height, width, channels, width * channels, channels, x_whole != 0};
  Map to = {height, width, features, dy_row, dy_pixel, dy_whole != 0};
  bool with_taps = TAPS > 0 && job.feature == job.channel;
  bool with_bias = bias && job.channel == 0 && job.row == 0 && job.column == 0;
  int tiles_high = (height + TILE_ROWS - 1) / TILE_ROWS, tiles_wide = (width + TILE_COLUMNS - 1) / TILE_COLUMNS;
  int tiles = images * tiles_high * tiles_wide;

  float* scales = (float*)(memory + 2 * STAGE_BYTES);
  float* shifts = scales + BLOCK;
  if (prologue != NONE)
    for (int i = threadIdx.x; i < BLOCK; i += THREADS) {
      bool known = job.channel + i < channels;
      scales[i] = known ? scale[job.channel + i] : 0.f;
      shifts[i] = known ? shift[job.channel + i] : 0.f;
    }
  __syncthreads();

  auto load = [&](int tile, char* stage) {
    Corner at = corner_of(tile, tiles_high, tiles_wide);
    long long image = (long long)at.image * height * width;
    load_padded<TILE_ROWS, TILE_COLUMNS, X_PITCH, SEGMENTS, PIXEL_BYTES, THREADS>(stage, x + image * channels, from, at.row, at.column, job.channel);
    load_padded<TILE_ROWS + 2 * RING, TILE_COLUMNS + 2 * RING, Y_PITCH, SEGMENTS, PIXEL_BYTES, THREADS>(
        stage + X_BYTES, dy + image * features, to, at.row - RING - job.row, at.column - RING - job.column, job.feature, with_taps ? 0 : RING);
  };
  Centre centre = {};
  Taps taps = {};
  int tile = blockIdx.x * job.shares + job.share, stride = gridDim.x * job.shares;
  char* stage = memory;
  char* next = memory + STAGE_BYTES;
  if (tile < tiles) load(tile, stage);
  copy_commit();
  for (; tile < tiles; tile += stride) {
    if (tile + stride < tiles) load(tile + stride, next);
    copy_commit();
    copy_wait<1>();  // the copies of this tile
    if (prologue != NONE) apply_prologue(stage, from, corner_of(tile, tiles_high, tiles_wide), scales, shifts, prologue, relu != 0);
    __syncthreads();  // everyone's copies
    add_centre(centre, stage, stage + X_BYTES, warp, lane, with_bias);
    if (with_taps) add_taps(taps, stage, stage + X_BYTES, warp, lane);
    __syncthreads();  // read by everyone before the copies after the next overwrite it
    char* done = stage;
    stage = next;
    next = done;
  }

  float* total = workspace + ((u64)blockIdx.x * gridDim.y + blockIdx.y) * WORDS;
  float* slices = (float*)memory;
  spread_centre(centre, slices, warp, lane);
  add_slices(total, slices, SLICES, BLOCK * BLOCK);
  spread_bias(centre, slices, warp, lane);
  add_slices(total + BLOCK * BLOCK, slices, SLICES, BLOCK);
  spread_taps(taps, slices, warp, lane);
  add_slices(total + BLOCK * BLOCK + BLOCK, slices, TAP_SLICES, TAPS * TAP_WORDS);
}
