// From the sums to the map: bias and residual, or the derivative of the prologue, then one store.
#pragma once

// residual: as y, may be null. gate: the input of the forward prologue, as y: sums are multiplied by its
// scale, and by zero where scale x + shift is not positive if relu. bias, affine: fp32,
// zeros beyond the features, may be null.
struct Output {
  Element* y;
  const Element* residual;
  const Element* gate;
  const float* bias;
  const float* affine;
  int features, padded;  // channels of y; step from scales to shifts in affine
  bool relu, whole;
};

DEVICE void finish(Sums& sums, const Output& output, int image, int top, int left, int first, int height, int width, int row, int pixel, int lane) {
  lane = recomputed(lane);
  const int group = lane / 4, h = top + group / 4;
  if (h >= height) return;
  const long long base = (long long)image * height * width * output.features;
#pragma unroll
  for (int p = 0; p < 4; p++) {
    const int w = left + 4 * (group % 4) + p;
    if (w >= width) continue;
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
      const int f = first + part * 4 * VECTOR + lane % 4 * VECTOR, count = output.features - f;
      if (count <= 0) continue;
      const int place = h * row + w * pixel + f;
      float value[VECTOR], other[VECTOR];
      for (int v = 0; v < VECTOR; v++) value[v] = sum_at(sums, p, part, v);
      if (output.bias)
        for (int v = 0; v < VECTOR; v++) value[v] += output.bias[f + v];
      if (output.gate) {
        load_some<VECTOR>(other, output.gate + base + place, count, output.whole);
        for (int v = 0; v < VECTOR; v++) {
          const float scale = output.affine[f + v], shift = output.affine[output.padded + f + v];
          value[v] = output.relu && !(scale * other[v] + shift > 0.f) ? 0.f : value[v] * scale;
        }
      }
      if (output.residual) {
        load_some<VECTOR>(other, output.residual + base + place, count, output.whole);
        for (int v = 0; v < VECTOR; v++) value[v] += other[v];
      }
      store_some<VECTOR>(output.y + base + place, value, count, output.whole);
    }
  }
}
