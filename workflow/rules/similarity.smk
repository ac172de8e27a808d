# CKA with intervals, and other measures of similarity.
