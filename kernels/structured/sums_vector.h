// Sums of 32-bit maps on CUDA cores: a thread owns a place (or two) and adds 2 SIDE^2 values for each sum.
#pragma once

constexpr int PLACES = (SUM_PIXELS + THREADS - 1) / THREADS;  // of a thread

struct Windows { float sum[PLACES]; };

DEVICE void clear(Windows& windows) {
#pragma unroll
  for (int p = 0; p < PLACES; p++) windows.sum[p] = 0.f;
}

// t: four channels summed over the SIDE x SIDE pixels under a place.
DEVICE float4 box(const char* raw, int y, int x, int segment) {
  float4 t = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll ROWS_AT_ONCE
  for (int dy = 0; dy < SIDE; dy++)
#pragma unroll
    for (int dx = 0; dx < SIDE; dx++) {
      float4 v = *(const float4*)(raw + place_in_chunks((y + dy) * RAW_W + x + dx, segment));
      t.x += v.x, t.y += v.y, t.z += v.z, t.w += v.w;
    }
  return t;
}

DEVICE void fill_windows(Windows& windows, const char* entering, int segments) {
  int thread = this_thread();
#pragma unroll
  for (int p = 0; p < PLACES; p++) {
    int row = thread + p * THREADS;
    if (row >= SUM_PIXELS) break;
#pragma unroll 1
    for (int segment = 0; segment < segments; segment++) {
      float4 t = box(entering, row / SUM_W, row % SUM_W, segment);
      windows.sum[p] += (t.x + t.y) + (t.z + t.w);
    }
  }
}

// Each sum, times `scale`, into `sums`: `segments` of them, zeros in the rest of the chunk.
// enter, leave: the first segments that enter and leave. deep: depth > 1, otherwise nothing leaves.
DEVICE void slide_windows(Windows& windows, const char* entering, int enter, const char* leaving, int leave, char* sums,
                          int segments, bool deep, float scale) {
  int thread = this_thread();
#pragma unroll
  for (int p = 0; p < PLACES; p++) {
    int row = thread + p * THREADS;
    if (row >= SUM_PIXELS) break;
    int y = row / SUM_W, x = row % SUM_W;
    float window = windows.sum[p];
#pragma unroll 1
    for (int segment = 0; segment < SEGMENTS; segment++) {
      float4 t = make_float4(0.f, 0.f, 0.f, 0.f);
      if (segment < segments) {
        t = box(entering, y, x, enter + segment);
        if (deep) {
          float4 last = box(leaving, y, x, leave + segment);
          t.x += window, window = t.x - last.x;
          t.y += window, window = t.y - last.y;
          t.z += window, window = t.z - last.z;
          t.w += window, window = t.w - last.w;
        }
      }
      *(float4*)(sums + place(row, segment)) = make_float4(t.x * scale, t.y * scale, t.z * scale, t.w * scale);
    }
    windows.sum[p] = window;
  }
}
