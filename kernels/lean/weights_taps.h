// Gradients of the outer taps from the tiles that the centre uses: dB[t] = sum over q of dY[q - t] U[q],
// so that only dY needs a halo. STENCIL 9: the eight neighbours row by row; 5: the four of the cross.
#pragma once
#include "weights_products.h"

constexpr int TAPS = STENCIL == 9 ? 8 : STENCIL == 5 ? 4 : 0;
DEVICE constexpr int tap_row(int t) { return STENCIL == 9 ? (t + (t > 3)) / 3 - 1 : t == 0 ? -1 : t == 3 ? 1 : 0; }
DEVICE constexpr int tap_column(int t) { return STENCIL == 9 ? (t + (t > 3)) % 3 - 1 : t == 1 ? -1 : t == 2 ? 1 : 0; }

#if TAPS_BY == DEPTHWISE
// One input channel a feature: plain products. A thread walks two rows of STRIP pixels for a pair of
// channels, with dY of 4 rows x 3 columns in registers. Neighbouring lanes hold neighbouring pairs, and
// where a warp spans several strips these lie two rows apart, which the pitches put into other banks.
constexpr int PAIRS = BLOCK / 2, STRIPS = THREADS / PAIRS, TAP_SLICES = STRIPS, TAP_WORDS = BLOCK;
struct Taps { float sum[TAPS][2]; };

DEVICE void add_taps(Taps& taps, const char* x, const char* dy, int, int) {
  int pair = threadIdx.x % PAIRS, strip = threadIdx.x / PAIRS;
  int row = strip % (TILE_ROWS / 2) * 2, column = strip / (TILE_ROWS / 2) * STRIP;
  x += (row * X_PITCH + column) * PIXEL_BYTES + pair * 2 * ELEMENT_BYTES;
  dy += (row * Y_PITCH + column) * PIXEL_BYTES + pair * 2 * ELEMENT_BYTES;
  float window[4][3][2];  // window[r][c % 3]: dY one row and one column before (r, c)
#pragma unroll
  for (int c = 0; c < STRIP + 2; c++) {
#pragma unroll
    for (int r = 0; r < 4; r++) load_pair(window[r][c % 3], (const Element*)(dy + (r * Y_PITCH + c) * PIXEL_BYTES));
    if (c < 2) continue;
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float u[2];
      load_pair(u, (const Element*)(x + (r * X_PITCH + c - 2) * PIXEL_BYTES));
#pragma unroll
      for (int t = 0; t < TAPS; t++)
        for (int e = 0; e < 2; e++) taps.sum[t][e] += window[r + 1 - tap_row(t)][(c - 1 - tap_column(t)) % 3][e] * u[e];
    }
  }
}
// To slices[strip][tap][channel].
DEVICE void spread_taps(const Taps& taps, float* slices, int, int) {
  int pair = threadIdx.x % PAIRS, strip = threadIdx.x / PAIRS;
  for (int t = 0; t < TAPS; t++)
    for (int e = 0; e < 2; e++) slices[(strip * TAPS + t) * BLOCK + pair * 2 + e] = taps.sum[t][e];
}

#elif TAPS_BY == BAND
// Groups of at most 16 channels, their number dividing 16, as many features as channels: they lie in the
// 16 x 16 tiles on the diagonal. Warp w takes tap w % TAPS, and of its tiles those of the turn w / TAPS.
constexpr int TILES = BLOCK / 16, JOBS = TAPS * TILES;
constexpr int TAP_SLICES = WARPS > JOBS ? WARPS / JOBS : 1, HELD = WARPS > JOBS ? 1 : JOBS / WARPS;
constexpr int TAP_WORDS = BLOCK * 16;
struct Taps { float sum[HELD][2][4]; };

DEVICE int band_tap(int job) { return job % TAPS; }
DEVICE int band_tile(int job) { return job / TAPS; }

DEVICE void add_taps(Taps& taps, const char* x, const char* dy, int warp, int lane) {
  int slice = warp / JOBS;
#pragma unroll
  for (int held = 0; held < HELD; held++) {
    int job = (warp + held * WARPS) % JOBS, t = band_tap(job), channel = band_tile(job) * 16 * ELEMENT_BYTES;
    const char* u = x + channel;
    const char* d = dy + channel + ((1 - tap_row(t)) * Y_PITCH + 1 - tap_column(t)) * PIXEL_BYTES;
#pragma unroll UNROLL
    for (int step = slice; step < STEPS; step += TAP_SLICES) {
      int row = step / STEPS_WIDE, column = step % STEPS_WIDE * FRAGMENT;
      u32 a[4], b[4];
      load_features(a, d + (row * Y_PITCH + column) * PIXEL_BYTES, lane);
      load_channels(b, u + (row * X_PITCH + column) * PIXEL_BYTES, lane);
      accumulate(taps.sum[held][0], a, b);
      accumulate(taps.sum[held][1], a, b + 2);
    }
  }
}
// To slices[slice][tap][feature][channel of its tile].
DEVICE void spread_taps(const Taps& taps, float* slices, int warp, int lane) {
#pragma unroll
  for (int held = 0; held < HELD; held++) {
    int job = (warp + held * WARPS) % JOBS, slice = warp / JOBS;
    for (int n = 0; n < 2; n++)
      for (int i = 0; i < 4; i++) {
        int feature = band_tile(job) * 16 + fragment_row(lane, i), channel = n * 8 + fragment_column(lane, i);
        slices[(slice * TAPS + band_tap(job)) * TAP_WORDS + feature * 16 + channel] = taps.sum[held][n][i];
      }
  }
}

#else
constexpr int TAP_SLICES = 1, TAP_WORDS = 0;
struct Taps {};
DEVICE void add_taps(Taps&, const char*, const char*, int, int) {}
DEVICE void spread_taps(const Taps&, float*, int, int) {}
#endif
