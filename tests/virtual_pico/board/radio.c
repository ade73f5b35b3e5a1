// The memory that a Pico W's radio takes, less that of its driver's stand-in here: with it 190 KB are
// left for both heaps
char radio[23 * 1024 - 3924];
