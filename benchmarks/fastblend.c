// The two inner loops of FastBlend's matching; see fastblend.py, where the same is said in torch.
// Pictures are (height, width, channels), one after the other; places are (row, column).

enum { STYLE = 3, ALL = 6 };

// Sums of squared differences of patches of guide and style. A patch of `target` lies around each pixel, one of `source`
// around its place; both are padded, so that every patch lies within. A sum that reaches `bound` is given up.
void patch_errors(const float *source, const float *target, const int *there, const float *bound, float *errors,
                  int count, int height, int width, int patch, int padding)
{
    const int row = (width + 2 * padding) * ALL, edge = padding - patch / 2;
    for (int n = 0; n < count; n++, source += (height + 2 * padding) * row, target += (height + 2 * padding) * row)
        for (int y = 0; y < height; y++)
            for (int x = 0; x < width; x++, there += 2, bound++, errors++) {
                const float *a = source + (there[0] + edge) * row + (there[1] + edge) * ALL;
                const float *b = target + (y + edge) * row + (x + edge) * ALL;
                float sum = 0;
                for (int dy = 0; dy < patch && sum < *bound; dy++, a += row, b += row)
                    for (int i = 0; i < patch * ALL; i++)
                        sum += (a[i] - b[i]) * (a[i] - b[i]);
                *errors = sum;
            }
}

// The mean of what all patches that cover a pixel bring to it. A patch that would bring something from beyond the
// picture has no vote; the pixel's own always has one.
void vote(const float *source, const int *there, float *voted, int count, int height, int width, int patch)
{
    const int reach = patch / 2;
    for (int n = 0; n < count; n++, source += height * width * STYLE, there += height * width * 2)
        for (int y = 0; y < height; y++)
            for (int x = 0; x < width; x++, voted += STYLE) {
                const int top = y < reach ? -y : -reach, bottom = y + reach < height ? reach : height - 1 - y;
                const int left = x < reach ? -x : -reach, right = x + reach < width ? reach : width - 1 - x;
                float sum[STYLE] = {0, 0, 0}, votes = 0;
                for (int dy = top; dy <= bottom; dy++) {
                    const int *way = there + ((y + dy) * width + x + left) * 2;
                    for (int dx = left; dx <= right; dx++, way += 2) {
                        const int v = way[0] - dy, u = way[1] - dx;
                        if ((unsigned)v >= (unsigned)height || (unsigned)u >= (unsigned)width)
                            continue;
                        const float *brought = source + (v * width + u) * STYLE;
                        for (int c = 0; c < STYLE; c++)
                            sum[c] += brought[c];
                        votes++;
                    }
                }
                for (int c = 0; c < STYLE; c++)
                    voted[c] = sum[c] / votes;
            }
}
